"""What must hold once a simulation has come to rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

import msgspec

from holdfast.codec.history import decode_events
from holdfast.engine.config import HostConfig
from holdfast.engine.exports import check_replay
from holdfast.engine.stored import decode_instance_lock, decode_section
from holdfast.errors import HoldfastError
from holdfast.model.exported import ExportedHistory
from holdfast.model.status import OrchestrationStatus
from holdfast.registry.registry import Registry
from holdfast.storage.port import InboxRow, InstanceRow
from holdfast.testing.ledger import Ledger
from holdfast.testing.loop import InvariantViolation
from holdfast.testing.store import Database

_PREFIXES_MAX: Final = 3


class _Lock(msgspec.Struct):
    section_id: str


def going_on(ledger: Ledger, now_us: int) -> list[str]:
    """Return what somebody should be about to do something about."""
    resting = {
        row.instance_id
        for row in ledger.instances.values()
        if row.status == OrchestrationStatus.SUSPENDED or row.lock is not None
    }
    found = [
        f"message {row.message_id} to {row.instance_id}: {row.event[:80]}"
        for row in ledger.messages.values()
        if row.instance_id not in resting or _is_for_section(ledger, row)
    ]
    found += [
        f"activity {row.key} of {row.instance_id}"
        for row in ledger.activities.values()
        if row.visible_at <= now_us and row.instance_id not in resting
    ]
    found += [
        f"timer {row.key} of {row.instance_id}"
        for row in ledger.timers.values()
        if row.due_at <= now_us and row.instance_id not in resting
    ]
    return found


def _is_for_section(ledger: Ledger, message: InboxRow) -> bool:
    """Whether a message is for a locked entity, and from within the section that holds its lock."""
    lock = ledger.instances[message.instance_id].lock
    return lock is not None and f'"{msgspec.json.decode(lock, type=_Lock).section_id}"' in message.event


async def check_finished(ledger: Ledger, database: Database, registry: Registry, config: HostConfig) -> None:
    """Hold the store against the ledger, the histories against the code, and what is open against the histories.

    Raises:
        InvariantViolation: naming what is broken.
    """
    check_stored(ledger, database.everything())
    orchestrations = [row for row in ledger.instances.values() if not row.instance_id.startswith("@")]
    for row in orchestrations:
        _check_nothing_forgotten(ledger, row)
        _check_replays(ledger, row, registry, config)
    _check_locks(ledger)
    _check_orphans(ledger)


def check_stored(ledger: Ledger, stored: Mapping[str, Mapping[Any, object]]) -> None:
    """Hold that the store has just what was committed to it."""
    expected: dict[str, Mapping[Any, object]] = {
        "instance": {key: _without_deliveries(row) for key, row in ledger.instances.items()},
        "history": {key: episodes for key, episodes in ledger.history.items() if episodes},
        "inbox": ledger.messages,
        "arrival": ledger.arrivals,
        "activity": {key: _without_deliveries(row) for key, row in ledger.activities.items()},
        "timer": ledger.timers,
        "child": ledger.children,
        "operation_key": ledger.operation_keys,
    }
    for table, rows in expected.items():
        found = {key: _without_deliveries(row) for key, row in stored[table].items()}
        if found != rows:
            wrong = sorted(str(key) for key in found.keys() ^ rows.keys()) or [
                str(key) for key, row in rows.items() if found[key] != row
            ]
            _broken("what is committed is stored", f"table {table} differs in {wrong[:5]}")


def _check_nothing_forgotten(ledger: Ledger, row: InstanceRow) -> None:
    """Hold that whatever an execution waits for is still on its way."""
    fold = ledger.folds.get(row.execution_id)
    if fold is None or OrchestrationStatus(row.status).is_terminal:
        return
    inbox = [message.event for message in ledger.messages.values() if message.instance_id == row.instance_id]
    for number in fold.open("TaskScheduled"):
        if (row.execution_id, number) not in ledger.activities and not _in_inbox(inbox, number):
            _broken("nothing is forgotten", f"{row.instance_id} waits for activity {number}, which nobody runs")
    for number in fold.open("SubOrchestrationInstanceCreated"):
        if (row.execution_id, number) not in ledger.children and not _in_inbox(inbox, number):
            _broken("nothing is forgotten", f"{row.instance_id} waits for child {number}, which nobody knows")


def _in_inbox(events: Iterable[str], number: int) -> bool:
    said = re.compile(rf'"task_scheduled_id":{number}\b')
    return any(said.search(event) for event in events)


def _check_replays(ledger: Ledger, row: InstanceRow, registry: Registry, config: HostConfig) -> None:
    """Hold that the history, and each of its beginnings, still asks for what it asked for (the cut test)."""
    episodes = tuple(decode_events(text) for text in ledger.history.get(row.execution_id, ()))
    cuts = range(len(episodes), 0, -max(1, len(episodes) // _PREFIXES_MAX))
    for length in cuts:
        history = ExportedHistory(
            instance_id=row.instance_id,
            execution_id=row.execution_id,
            name=row.name,
            version=row.version,
            episodes=episodes[:length],
        )
        try:
            check_replay(registry, history, config)
        except HoldfastError as error:
            which = "its" if length == len(episodes) else f"the first {length} of its"
            _broken(
                "replays agree", f"replayed from {which} {len(episodes)} episodes, at the end of the test:\n{error}"
            )


def _check_locks(ledger: Ledger) -> None:
    for row in ledger.instances.values():
        lock = decode_instance_lock(row) if row.instance_id.startswith("@") else None
        if lock is None:
            continue
        holder = ledger.instances.get(lock.instance_id)
        section = None if holder is None else decode_section(holder)
        if section is None or section.section_id != lock.section_id:
            _broken("locks have holders", f"{row.instance_id} is locked for {lock.instance_id}, which holds no lock")


def _check_orphans(ledger: Ledger) -> None:
    current = {row.execution_id for row in ledger.instances.values()}
    for table in (ledger.activities, ledger.timers, ledger.children):
        for key in table:
            if key[0] not in current:
                _broken("no orphans", f"{key} belongs to no current execution")
    for execution_id, episodes in ledger.history.items():
        if episodes and execution_id not in current:
            _broken("no orphans", f"the history of {execution_id} belongs to no current execution")


def _without_deliveries(row: Any) -> object:
    """Return a row without the count that an acquisition changes beside all transitions."""
    return msgspec.structs.replace(row, deliveries=0) if hasattr(row, "deliveries") else row


def _broken(rule: str, what: str) -> NoReturn:
    raise InvariantViolation(rule, what)
