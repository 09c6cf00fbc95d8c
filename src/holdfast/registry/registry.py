"""The functions of an app by kind and name; names are unique without regard to case."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, TypeVar

from holdfast.errors import ConfigurationError, NotRegisteredError, VersionMismatchError
from holdfast.model.entities import EntityDefinition
from holdfast.model.refs import Activity, Orchestrator
from holdfast.registry.bulk import BULK_ORCHESTRATOR

V = TypeVar("V", Activity[Any, Any], Orchestrator[Any, Any])
R = TypeVar("R", bound=Activity[Any, Any] | Orchestrator[Any, Any] | EntityDefinition)


ACTIVITY: Final = "activity "
ORCHESTRATOR: Final = "orchestrator "
_QUEUE: Final = "queue "
"""What stands before names, of functions in lower case, where a host says what it can run."""


def declared_queues(queues: Collection[str] | None) -> set[str]:
    """Return what a host says of the queues that it serves; None for all."""
    return {_QUEUE + queue for queue in (("*",) if queues is None else queues)}


def is_served(queue: str, declared: Collection[str]) -> bool:
    """Whether a queue is served by hosts that have said this."""
    return _QUEUE + queue in declared or f"{_QUEUE}*" in declared


class Registry:
    """Filled while modules are imported, read-only in spirit once a host runs."""

    def __init__(self) -> None:
        self._activities: dict[str, Activity[Any, Any]] = {}
        self._orchestrators: dict[str, Orchestrator[Any, Any]] = {}
        self._activity_versions: dict[tuple[str, str | None], Activity[Any, Any]] = {}
        self._versions: dict[tuple[str, str | None], Orchestrator[Any, Any]] = {}
        self._entities: dict[str, EntityDefinition] = {}

    @property
    def orchestrators(self) -> Collection[Orchestrator[Any, Any]]:
        return self._orchestrators.values()

    @property
    def orchestrator_versions(self) -> Collection[Orchestrator[Any, Any]]:
        """All orchestrators, where there are several versions each of them."""
        return self._versions.values()

    @property
    def activities(self) -> Collection[Activity[Any, Any]]:
        return self._activities.values()

    @property
    def entities(self) -> Collection[EntityDefinition]:
        return self._entities.values()

    def functions(self) -> set[str]:
        """What this app can run, as hosts tell each other: a kind and a name in lower case."""
        return {ACTIVITY + name for name in self._activities} | {ORCHESTRATOR + name for name in self._orchestrators}

    def add_activity(self, activity: Activity[Any, Any]) -> None:
        _add_version(self._activities, self._activity_versions, "activity", activity)

    def add_orchestrator(self, orchestrator: Orchestrator[Any, Any]) -> None:
        _add_version(self._orchestrators, self._versions, "orchestrator", orchestrator)

    def add_entity(self, entity: EntityDefinition) -> None:
        _add(self._entities, "entity", entity)

    def with_activities(self, change: Callable[[Activity[Any, Any]], Activity[Any, Any]]) -> Registry:
        """Return a registry with the same functions, except that each activity is what `change` makes of it."""
        changed = Registry()
        for activity in self._activity_versions.values():
            changed.add_activity(change(activity))
        for orchestrator in self._versions.values():
            changed.add_orchestrator(orchestrator)
        for entity in self._entities.values():
            changed.add_entity(entity)
        return changed

    def find_activity(self, name: str) -> Activity[Any, Any] | None:
        return self._activities.get(name.casefold())

    def find_orchestrator(self, name: str, version: str | None = None) -> Orchestrator[Any, Any] | None:
        """Return the orchestrator of exactly this version, or else the one without a version, if there is one."""
        if name == BULK_ORCHESTRATOR.name:
            return BULK_ORCHESTRATOR
        found = self._versions.get((name.casefold(), version))
        return found or self._versions.get((name.casefold(), None))

    def find_entity(self, name: str) -> EntityDefinition | None:
        return self._entities.get(name.casefold())

    def orchestrator(self, name: str, version: str | None = None) -> Orchestrator[Any, Any]:
        """Return the orchestrator for a name and a version.

        Raises:
            NotRegisteredError: naming the nearest one.
            VersionMismatchError: if there are only other versions of it.
        """
        self.check_orchestrator_name(name)
        found = self.find_orchestrator(name, version)
        if found is None:
            known = ", ".join(repr(v) for key, v in self._versions if key == name.casefold())
            raise VersionMismatchError(
                f"The app has no version {version!r} of orchestrator {name!r}; it has {known}. Start one of these, set "
                "default_version, or register a function without a version."
            )
        return found

    def check_orchestrator_name(self, name: str) -> None:
        """Raise NotRegisteredError, naming the nearest one, if there is no orchestrator of a name in any version."""
        if name.casefold() not in self._orchestrators and name != BULK_ORCHESTRATOR.name:
            raise not_registered("orchestrator", name, self._orchestrators)

    def activity(self, name: str, version: str | None = None) -> Activity[Any, Any]:
        """Return the activity for a name and a version.

        Raises:
            NotRegisteredError: naming the nearest one.
            VersionMismatchError: if there are only other versions of it.
        """
        key = name.casefold()
        if key not in self._activities:
            raise not_registered("activity", name, self._activities)
        found = self._activity_versions.get((key, version)) or self._activity_versions.get((key, None))
        if found is None:
            known = ", ".join(repr(v) for each, v in self._activity_versions if each == key)
            raise VersionMismatchError(f"The app has no version {version!r} of activity {name!r}; it has {known}.")
        return found

    def entity(self, name: str) -> EntityDefinition:
        """Return an entity by name.

        Raises:
            NotRegisteredError: naming the nearest one.
        """
        found = self.find_entity(name)
        if found is None:
            raise not_registered("entity", name, self._entities)
        return found


def _add(functions: dict[str, R], kind: str, added: R) -> None:
    if not added.name or not added.name.isprintable() or len(added.name) > 256:
        raise ConfigurationError(f"{added.name[:40]!r} cannot name an {kind}; use 1 to 256 printable characters.")
    if added.name == "<lambda>":
        raise ConfigurationError(f"An {kind} needs a name under which it is found after a restart; '<lambda>' is none.")
    if added.name.casefold() in functions:
        raise ConfigurationError(
            f"The app has an {kind} {added.name!r} already (names must differ by more than case); "
            "pass another name=... to the decorator."
        )
    functions[added.name.casefold()] = added


def _add_version(names: dict[str, V], versions: dict[tuple[str, str | None], V], kind: str, added: V) -> None:
    """Add a function; others of its name must have the very same name, and another version."""
    key = (added.name.casefold(), added.version)
    known = names.get(key[0])
    if known is None or key in versions or known.name != added.name:
        _add(names, kind, added)
    versions[key] = added


def not_registered(
    kind: str, name: str, known: Mapping[str, Activity[Any, Any] | Orchestrator[Any, Any] | EntityDefinition]
) -> NotRegisteredError:
    near = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=0.5)
    if near:
        hint = f" Did you mean {known[near[0]].name!r}?"
    else:
        names = ", ".join(sorted(each.name for each in known.values())[:20]) or "none"
        hint = f" It has: {names}."
    return NotRegisteredError(f"The app has no {kind} {name!r}.{hint}")
