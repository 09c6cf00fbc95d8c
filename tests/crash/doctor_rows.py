"""`holdfast doctor` on the rows that the tests of crashes look at: it must find nothing in what a crash leaves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import store_check

from holdfast.engine.doctor import Finding, check_store
from holdfast.storage.port import InstanceRow, StoredInstance
from holdfast.storage.sqlite.snapshot import open_snapshot


def findings(rows: store_check.Rows) -> list[Finding]:
    return list(check_store(DoctorRows(rows), lambda _: None))


def findings_in_file(path: Path) -> list[Finding]:
    with open_snapshot(path) as snapshot:
        assert list(snapshot.orphans()) == []
        return list(check_store(snapshot, lambda _: None))


class DoctorRows:
    """What a snapshot of a file has, for rows in memory."""

    def __init__(self, rows: store_check.Rows) -> None:
        self._rows = rows
        self._instances = {row.instance_id: row for row in rows.instances}

    @property
    def partition_count(self) -> int:
        return self._rows.partition_count

    def instances(self, after: str, limit: int) -> list[InstanceRow]:
        return [self._instances[each] for each in sorted(self._instances) if each > after][:limit]

    def load(self, instance_ids: list[str]) -> list[StoredInstance]:
        found = [self._load(each) for each in instance_ids]
        return [each for each in found if each.row is not None or each.messages]

    def _load(self, instance_id: str) -> StoredInstance:
        row = self._instances.get(instance_id)
        execution = None if row is None else row.execution_id
        messages = [each for each in self._rows.messages if each.instance_id == instance_id]
        return StoredInstance(
            instance_id,
            row,
            sorted(messages, key=lambda each: each.message_id),
            [each for each in self._rows.activities if each.execution_id == execution],
            [each for each in self._rows.timers if each.execution_id == execution],
            [each for each in self._rows.children if each.execution_id == execution],
            [each for each in self._rows.operation_keys if each.instance_id == instance_id],
        )

    def episodes(self, partition: int, execution_id: str) -> list[tuple[int, str]]:
        return sorted(
            (each.episode, each.events)
            for each in self._rows.history
            if (each.partition, each.execution_id) == (partition, execution_id)
        )

    def messages_about(self, text: str) -> list[str]:
        return [each.event for each in self._rows.messages if text in each.event]

    def doubled_executions(self) -> Iterable[tuple[str, str, str]]:
        return ()

    def messages_to_nobody(self) -> Iterable[tuple[str, int, str]]:
        there: set[str] = set(self._instances)
        for each in sorted(self._rows.messages, key=lambda row: row.message_id):
            if each.instance_id not in there and not each.instance_id.startswith("@"):
                there.add(each.instance_id)
                yield each.instance_id, each.message_id, each.event
