"""What a client is told when a wait runs out, the same wherever the hub is."""

from __future__ import annotations

from datetime import timedelta

from holdfast.errors import WaitTimeoutError
from holdfast.model.requests import OperationRequest


def not_stopped(instance_id: str, timeout: timedelta | None) -> WaitTimeoutError:
    return WaitTimeoutError(f"Instance {instance_id!r} has not ended within {timeout}.")


def not_updated(instance_id: str, update_id: str, timeout: timedelta | None) -> WaitTimeoutError:
    return WaitTimeoutError(
        f"Instance {instance_id!r} has not answered update {update_id!r} within {timeout}. It may "
        "still: ask again with the same update_id."
    )


def not_answered(request: OperationRequest, timeout: timedelta | None) -> WaitTimeoutError:
    again = "; ask again with its key for the result" if request.key else ""
    return WaitTimeoutError(
        f"Entity {request.instance_id} has not answered within {timeout}. The operation may still run{again}."
    )
