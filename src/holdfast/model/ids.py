"""Identity: instance ids, entity ids, partitions."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, overload

from holdfast.errors import InvalidInputError, InvalidInstanceIdError

if TYPE_CHECKING:
    from holdfast.model.entities import EntityDefinition, EntityFunction

INSTANCE_ID_CHARS_MAX = 256
_FORBIDDEN = frozenset("/\\#?")

E = TypeVar("E")

NewId: TypeAlias = Callable[[], str]
"""Makes an id that nothing else has."""


def _check_text(text: str, what: str) -> None:
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInstanceIdError(f"{what} is {text!r}; it must be a text.")
    if not text:
        raise InvalidInstanceIdError(f"{what} is empty; give it at least one character.")
    if len(text) > INSTANCE_ID_CHARS_MAX:
        raise InvalidInstanceIdError(
            f"{what} has {len(text)} characters, {text[:40]!r}...; at most {INSTANCE_ID_CHARS_MAX} are allowed."
        )
    if text.isprintable() and _FORBIDDEN.isdisjoint(text):
        return
    for char in text:
        if char in _FORBIDDEN or not char.isprintable():
            raise InvalidInstanceIdError(
                f"{what} {text!r} contains {char!r}; the characters / \\ # ? and those that do not print "
                "are not allowed."
            )


def validate_instance_id(instance_id: str) -> str:
    """Return the id of an orchestration instance unchanged, if it is one.

    1 to 256 printable characters, none of `/ \\ # ?`, and no leading `@`, which marks entities.

    Raises:
        InvalidInstanceIdError: with the offending character or length.
    """
    _check_text(instance_id, "The instance id")
    if instance_id.startswith("@"):
        raise InvalidInstanceIdError(f"The instance id {instance_id!r} starts with '@', which is kept for entities.")
    return instance_id


def partition_of(instance_id: str, partition_count: int) -> int:
    """Return the partition that owns an instance: a hash that is stable over processes and versions."""
    if partition_count == 1:
        return 0
    return zlib.crc32(instance_id.encode("utf-8", "surrogatepass")) % partition_count


class EntityId(Generic[E]):
    """The address of an entity: a name (case-insensitive, kept in lower case) and a key (case-sensitive).

    `EntityId(Counter, "clicks")` is typed by the entity class; `EntityId("counter", "clicks")` names the same entity.
    The name has no `@`; the key may have one.
    As an instance id it is written `@counter@clicks`.
    """

    __slots__ = ("_entity", "key", "name")

    @overload
    def __init__(self, entity: type[E], key: str) -> None: ...
    @overload
    def __init__(self: EntityId[Any], entity: EntityFunction | str, key: str) -> None: ...
    def __init__(self, entity: type[E] | EntityFunction | str, key: str) -> None:
        if not isinstance(entity, str) and not hasattr(entity, "__entity_class__"):
            raise InvalidInstanceIdError(
                f"{entity!r:.60} is no entity class, entity function or name; write EntityId(Counter, {key!r:.40})."
            )
        self._entity: Any = None if isinstance(entity, str) else entity
        known = self.definition
        name = entity if isinstance(entity, str) else (known.name if known else getattr(entity, "__name__", ""))
        _check_text(name, "The entity name")
        _check_text(key, "The entity key")
        if "@" in name:
            raise InvalidInstanceIdError(f"The entity name {name!r} contains '@'.")
        self.name = name.lower()
        self.key = key
        if len(self.instance_id) > INSTANCE_ID_CHARS_MAX:
            raise InvalidInstanceIdError(
                f"The entity id {self.instance_id[:40]!r}... has {len(self.instance_id)} characters; "
                f"at most {INSTANCE_ID_CHARS_MAX} are allowed."
            )

    @property
    def instance_id(self) -> str:
        """The id under which the entity is stored, `@name@key`."""
        return f"@{self.name}@{self.key}"

    def result_type(self, operation: str) -> Any:
        """Return the annotated result of an operation, or `Any` if this id was made from a name."""
        found = self.definition.operations.get(operation.lower()) if self.definition else None
        return found.output_type if found else Any

    @property
    def state_type(self) -> Any:
        """The entity class, or `Any` if this id was made from a name or a function."""
        return self.definition.state_type if self.definition else Any

    @property
    def definition(self) -> EntityDefinition | None:
        """What the app says about the entity, if this id was made from its class or its function."""
        found: EntityDefinition | None = getattr(self._entity, "__entity_class__", None)
        # A class that is not registered itself inherits the definition of its base, and is not meant.
        return found if getattr(found, "cls", self._entity) is self._entity else None

    @staticmethod
    def parse(instance_id: str) -> EntityId[object]:
        """Read `@name@key`.

        Raises:
            InvalidInputError: if the text is not of this form.
        """
        mark, _, rest = instance_id.partition("@")
        name, separator, key = rest.partition("@")
        if mark or not separator:
            raise InvalidInputError(f"{instance_id!r} is not an entity id; it is written '@name@key'.")
        return EntityId(name, key)

    def __repr__(self) -> str:
        return f"EntityId({self.name!r}, {self.key!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EntityId) and (self.name, self.key) == (other.name, other.key)

    def __hash__(self) -> int:
        return hash((self.name, self.key))


def address_of(entity: EntityId[Any]) -> str:
    """Return the instance id of an entity.

    Raises:
        InvalidInputError: for anything but an EntityId.
    """
    if not isinstance(entity, EntityId):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"{entity!r:.80} is no entity; write EntityId(Counter, 'key').")
    return entity.instance_id


def name_of(instance_id: str) -> str:
    """Return the name of the entity that an id like `@name@key` addresses."""
    return instance_id[1:].partition("@")[0]


def is_entity(instance_id: str) -> bool:
    """Return whether an instance id addresses an entity."""
    return instance_id.startswith("@")
