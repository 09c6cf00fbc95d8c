"""Histories out of a store, and back against the code of an app: without a host, and beside one that runs."""

from __future__ import annotations

from typing import Any, Final

from holdfast.codec.converter import JsonConverter
from holdfast.codec.history import decode_events
from holdfast.engine.config import HostConfig
from holdfast.errors import CorruptRecordError, InstanceNotFoundError, OverloadedError, VersionMismatchError
from holdfast.model.exported import ExportedHistory
from holdfast.model.history import HistoryEvent
from holdfast.model.refs import Orchestrator
from holdfast.model.versions import matches
from holdfast.registry.registry import Registry
from holdfast.replay.check import check_history
from holdfast.storage.port import Store

_READS_MAX: Final = 20


async def read_history(store: Store, instance_id: str, first: int = 0, limit: int | None = None) -> ExportedHistory:
    """Return what is stored of the history of an instance's current execution, or some of its episodes.

    Raises:
        InstanceNotFoundError: if there is no such instance.
        OverloadedError: if it starts over too quickly to be read.
        CorruptRecordError: naming the episode that cannot be read.
    """
    row = await store.read_instance(instance_id)
    for _ in range(_READS_MAX):
        if row is None:
            raise InstanceNotFoundError(instance_id)
        texts = await store.load_history(row.instance_id, row.execution_id, first, limit)
        again = await store.read_instance(instance_id)
        if again is not None and again.execution_id == row.execution_id:
            return ExportedHistory(
                instance_id=instance_id,
                execution_id=row.execution_id,
                name=row.name,
                version=row.version,
                episodes=tuple(decode_episode(instance_id, episode, text) for episode, text in enumerate(texts, first)),
            )
        row = again  # it was continued as new between the two reads, and its old history may have gone
    raise OverloadedError(f"Instance {instance_id!r} starts over too quickly for its history to be read. Try again.")


def decode_episode(instance_id: str, episode: int, text: str) -> tuple[HistoryEvent, ...]:
    """Return the events of one stored episode.

    Raises:
        CorruptRecordError: naming the episode.
    """
    try:
        return decode_events(text)
    except CorruptRecordError as error:
        raise CorruptRecordError(
            f"Episode {episode} of the history of instance {instance_id!r} cannot be read: {error}"
        ) from error


def check_replay(registry: Registry, history: ExportedHistory, config: HostConfig) -> None:
    """Replay a history against the code with which a host of this app and config would run it.

    Raises:
        NonDeterminismError: if the code does something else than the history says.
        NotRegisteredError: if the app has no such orchestrator.
        VersionMismatchError: if it has none that may run this version.
    """
    orchestrator = code_for(registry, config, history.instance_id, history.name, history.version)
    converter = JsonConverter(payload_bytes_max=config.limits.payload_bytes_max)
    check_history(orchestrator, history, converter, config.limits)


def code_for(
    registry: Registry, config: HostConfig, instance_id: str, name: str, version: str | None
) -> Orchestrator[Any, Any]:
    """Return the code for an instance: that of exactly its version, or one that the host's rule lets run it.

    Raises:
        NotRegisteredError, VersionMismatchError.
    """
    orchestrator = registry.orchestrator(name, version)
    if orchestrator.version is None and not matches(version, config.default_version, config.version_match):
        raise VersionMismatchError(
            f"Instance {instance_id!r} of orchestrator {name!r} has version {version!r}; this host is version "
            f"{config.default_version!r} and runs what matches {config.version_match!r}."
        )
    return orchestrator
