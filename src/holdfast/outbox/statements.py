"""The statement that stores a message. The partition is computed in it: only the database knows of how many.

Placeholders are written `{crc}`, `{instance_id}` and `{event}`, once each and in this order.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Final, TypeAlias

from holdfast.errors import ConfigurationError
from holdfast.outbox.messages import Outgoing
from holdfast.storage.postgres_schema import SCHEMA_NAME, channel_of

Style: TypeAlias = Callable[[int, str], str]
"""How a driver writes the placeholder with a number, from 1, and a name."""

Values: TypeAlias = tuple[int, str, str]

STYLES: Final[dict[str, Style]] = {
    "numbered": lambda number, _: f"${number}",
    "percent": lambda _, __: "%s",
    "question mark": lambda _, __: "?",
    "named": lambda _, name: f":{name}",
}
NAMES: Final = ("crc", "instance_id", "event")
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")

_POSTGRES: Final = """
WITH sent AS (
    INSERT INTO "{schema}".arrival (partition, instance_id, event)
    SELECT mod(CAST({{crc}} AS bigint), partition_count), CAST({{instance_id}} AS text), CAST({{event}} AS text)
    FROM "{schema}".hub
    RETURNING partition
)
SELECT {result} FROM sent
"""
_NOTIFYING: Final = "partition, pg_notify('{channel}', concat('arrivals ', partition))"

_SQLITE: Final = """
INSERT INTO main.arrival (partition, instance_id, event)
SELECT {crc} % partition_count, {instance_id}, {event} FROM main.hub
"""


class Statements:
    """The statements for one hub, by the kind of its database and the style of a driver."""

    def __init__(self, schema: str, *, notify: bool) -> None:
        if not isinstance(schema, str) or not SCHEMA_NAME.match(schema):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise ConfigurationError(
                f"{schema!r:.80} cannot be the schema of a task hub; use that of the host's URL, ?schema=."
            )
        self.schema = schema
        result = _NOTIFYING.format(channel=channel_of(schema)) if notify else "partition"
        self._texts = {"postgresql": _POSTGRES.format(schema=schema, result=result), "sqlite": _SQLITE}

    def text(self, database: str, style: str) -> str:
        """Return the statement, to be run with `values_of` a message."""
        placeholder = STYLES[style]
        text = self._texts[database].replace("%", "%%") if style == "percent" else self._texts[database]
        return _PLACEHOLDER.sub(lambda found: placeholder(NAMES.index(found[1]) + 1, found[1]), text)


def values_of(message: Outgoing) -> Values:
    """Return what the placeholders of the statement stand for."""
    return (zlib.crc32(message.instance_id.encode()), message.instance_id, message.event)
