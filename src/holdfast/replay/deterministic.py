"""Values that look random and are the same on every replay. Each kind has a stream of its own."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

# The namespace is that of the Durable Functions SDKs, uuid5(NAMESPACE_OID, "9e952958-5e33-4daf-827f-2fa12937b875"). The
# name has the execution id as well: a clock that does not tick would repeat the UUIDs of one execution in the next.
_NAMESPACE = uuid.UUID("5bf3dc27-d91d-5ea7-9c3e-9f1f2ae7c309")


def deterministic_uuid(instance_id: str, execution_id: str, now: datetime, counter: int) -> uuid.UUID:
    """Return the `counter`-th UUID (version 5) of an execution at an instant of its own clock."""
    return uuid.uuid5(_NAMESPACE, f"{instance_id}_{execution_id}_{now:%Y-%m-%dT%H:%M:%S.%fZ}_{counter}")


def deterministic_random(instance_id: str, execution_id: str) -> random.Random:
    """Return the generator of one execution; not for secrets, since whoever knows the ids can repeat it."""
    import random  # few orchestrators need it

    return random.Random(f"{instance_id}/{execution_id}")
