"""Mistakes that an engine like this one can have, as small changes of its source, made only while a test runs.

They test the simulator: one that it does not find is a hole in what it checks. Each names the function, the text to be
replaced in it, and what stands there instead; a change of the function that makes it meaningless fails loudly.
"""

from __future__ import annotations
import __future__

import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from types import FunctionType
from typing import Any, NamedTuple


class Edit(NamedTuple):
    function: str
    """`module:qualified name`, below `holdfast`."""
    old: str
    new: str


class PlantedBug(NamedTuple):
    name: str
    edits: tuple[Edit, ...]


def bug(name: str, *edits: tuple[str, str, str]) -> PlantedBug:
    return PlantedBug(name, tuple(Edit(*edit) for edit in edits))


_NO_FENCE = (
    "storage.memory:MemoryStore._check_fence",
    "if data.released or data.incarnation != fence.incarnation or data.epochs != fence.epochs:",
    "if False:",
)
_NO_COUNTS = ("storage.memory:MemoryStore._check_counts", "revisions = [", "return\n    revisions = [")

BUGS: tuple[PlantedBug, ...] = (
    # What leaves the process before its cause is durable
    bug(
        "activities start before their cause is durable",
        ("engine.activity_starts:ActivityStarts.expect", "if activity.policy.speculative:", "if True:"),
    ),
    bug(
        "a start is answered before it is durable",
        ("engine.changes:change_instance", "await confirm(node, lsn)", "pass"),
    ),
    bug(
        "a signal is answered before it is durable",
        ("engine.entity_requests:EntityRequests.signal", "await node.journal.durable(transition.lsn)", "pass"),
    ),
    bug(
        "waiting clients are woken before the end is durable",
        (
            "engine.node:Node.enter",
            "for output in transition.outputs:",
            "for output in transition.outputs:\n        if type(output).__name__ == 'InstanceStopped': "
            "self._outputs.act_on(output)",
        ),
    ),
    bug(
        "calls of entities are answered before they are durable",
        (
            "engine.node:Node.enter",
            "for output in transition.outputs:",
            "for output in transition.outputs:\n        if type(output).__name__ == 'OperationAnswered': "
            "self._outputs.act_on(output)",
        ),
    ),
    bug(
        "a status is read from memory, ahead of the store",
        (
            "engine.task_hub:LocalTaskHub.get_state",
            "row = await",
            "resident = self._engine.node.residents.get(instance_id)\n"
            "    if resident is not None: return resident.instance.snapshot()\n    row = await",
        ),
    ),
    bug(
        "async operations begin before their cause is durable",
        ("engine.batches:Batches._run_async", "await node.journal.durable(node.hub.lsn)", "pass"),
    ),
    # Who may write
    bug("no fence, revisions checked", _NO_FENCE),
    bug("no fence, no revisions, no row counts", _NO_FENCE, _NO_COUNTS),
    bug(
        "an idle owner does not notice that it was replaced",
        ("engine.recovery:_renew", "return job.result()", "return False"),
        ("engine.changes:confirm", "await node.confirmations.confirm()", "pass"),
    ),
    # What a failed commit undoes
    bug(
        "the commit is no prefix: the latest transition goes first",
        ("engine.journal:Journal._take_group", "self._waiting.popleft()", "self._waiting.pop()"),
    ),
    bug(
        "the commit is no prefix, and says that it is",
        ("engine.journal:Journal._take_group", "self._waiting.popleft()", "self._waiting.pop()"),
        (
            "engine.journal:Journal._commit_group",
            "coalesce(self.durable_lsn, group,",
            "coalesce(self.durable_lsn, group[-1:],",
        ),
        ("storage.memory:MemoryStore.commit", "if data.lsn != writes.lsn_before:", "if False:"),
        _NO_COUNTS,
    ),
    bug(
        "a refused commit is forgotten, and memory kept",
        (
            "engine.journal:Journal._committed",
            "None if commit.cancelled() else commit.exception()",
            "commit.exception() and None",
        ),
    ),
    bug(
        "an unknown commit is tried again blindly",
        (
            "engine.journal:Journal._committed",
            "if error is not None:",
            "if isinstance(error, CommitFailedError) and commit is not self.__dict__.get('again'):\n"
            "        self.again = asyncio.ensure_future(self._store.commit(self._ownership.fence, writes))\n"
            "        self.again.add_done_callback(lambda commit: self._committed(commit, group, writes))\n"
            "        return\n"
            "    if error is not None:",
        ),
        _NO_COUNTS,
        ("storage.memory:MemoryStore.commit", "if data.lsn != writes.lsn_before:", "if False:"),
    ),
    bug(
        "state that is not durable leaves memory",
        ("engine.residents:Resident.is_idle", "instance.lsn <= durable_lsn", "True"),
    ),
    bug(
        "whoever waits for a lost transition is not told",
        ("engine.journal:Journal.fail", "future.set_exception(_lost", "(lambda error: None)(_lost"),
    ),
    # Requests that are repeated
    bug(
        "idempotency keys of signals and calls are not looked at",
        ("hub.operation_keys:key_of", "return event.key", "return None"),
    ),
    bug(
        "keys of operations are not read back",
        ("engine.stored:decode_instance", "instance.remember(_decode_operation_key(key))", "pass"),
    ),
    bug(
        "a repeated start begins a second execution",
        (
            "hub.requests:Requests.admit",
            "if is_repetition or",
            "if is_repetition and existing.is_terminal:\n        return Admission.START\n    if is_repetition or",
        ),
    ),
    # Messages
    bug(
        "consumed messages stay in the inbox",
        ("hub.transition:Transition.consume", "self.consumed.append(message.message_id)", "pass"),
    ),
    bug(
        "a message that is read and sent is delivered twice",
        ("engine.loader:Loader._arrive", "if message_id is None or message_id not in delivered:", "if True:"),
    ),
    bug(
        "messages of an old execution reach the new one",
        ("hub.hub:Hub.deliver", "message.execution_id not in (None, instance.execution_id)", "False"),
        ("hub.activities:open_attempt", "or activity.execution_id != work_item.execution_id", ""),
    ),
    bug(
        "events that wait are lost when an execution continues as new",
        (
            "hub.episodes:continue_as_new",
            "transition.is_new_execution = True",
            "transition.is_new_execution = True\n"
            "    transition.consumed.extend(m.message_id for m in instance.inbox if m.message_id is not None)\n"
            "    instance.inbox.clear()",
        ),
    ),
    bug(
        "the inbox is last in, first out",
        (
            "hub.hub:Hub.deliver",
            "else:\n        instance.inbox.append(message)",
            "else:\n        instance.inbox.appendleft(message)",
        ),
    ),
    # Purges
    bug(
        "a purge takes what still runs",
        ("storage.memory:MemoryStore.ended_instances", "if row.status in _ENDED", "if True"),
    ),
    bug(
        "two purges at once remove an instance twice",
        ("engine.purging:_remove", "and node.loader.gone_at(each.instance_id) <= seen_lsn", ""),
    ),
    bug(
        "a purge leaves the history",
        ("hub.hub:Hub.purge", "transition.executions_removed = instances, executions", "_ = instances, ()"),
    ),
    # Activities
    bug(
        "a completion is taken in twice",
        ("hub.activities:open_attempt", "None if work_item.sequence in instance.answered else activity", "activity"),
        (
            "engine.activity_runner:ActivityRunner._end",
            "self._finished(attempt.work_item, outcome)",
            "self._finished(attempt.work_item, outcome); self._finished(attempt.work_item, outcome)",
        ),
    ),
    bug(
        "activities are not taken up again after a start",
        ("engine.recovery:_fill_activities", "node.starts.overflowed.clear()", "return"),
    ),
    bug(
        "outcomes that came during a failed commit are not offered again",
        ("engine.answers:Answers.offer_again", "return list(self._by_key.values())", "return []"),
    ),
    bug(
        "outcomes for instances that are held back are forgotten",
        ("engine.activity_reports:ActivityReports.offer_again", "self.finished(work_item, outcome)", "pass"),
    ),
    bug(
        "an attempt starts before it is counted",
        ("hub.activities:replace_activity", "transition.activities_updated.append(activity)", "pass"),
    ),
    bug(
        "each recovery starts what runs already",
        ("engine.activity_starts:ActivityStarts.waits_for_start", "and not is_going_on", ""),
        ("engine.recovery:_fill_activities", "if row.key in known:", "if False:"),
        ("engine.activity_runner:ActivityRunner.submit", "if key not in self._queued:", "if True:"),
        ("engine.activity_runner:ActivityRunner._next", "if key not in self._running:", "if True:"),
    ),
    bug(
        "work that kills its host is tried for ever",
        ("engine.suspects:Suspects._run_activity", "if activity.deliveries >=", "if False and activity.deliveries >="),
    ),
    bug(
        "an internal error, after which the host starts again",
        (
            "hub.hub:Hub.finish_activity",
            "if activity is None:",
            "if activity is not None and self.lsn % 7 == 0:\n"
            "        raise KeyError('planted')\n    if activity is None:",
        ),
    ),
    # Timers
    bug(
        "timers fire early",
        ("engine.timers:DueTimes._wake", "now = self._clock.now()", "now = self._clock.now() + timedelta(seconds=1)"),
    ),
    bug(
        "an orchestrator sees a time before that of its timer",
        ("hub.episodes:next_episode", "max(begins_at, event.fire_at)", "begins_at"),
    ),
    bug(
        "timers are not taken up again after a start",
        ("engine.recovery:_fill_timers", "while True:", "while False:"),
    ),
    bug(
        "timers for which there was no room are forgotten",
        (
            "engine.recovery:_fill_further",
            "after = None if last is None else (to_microseconds(last[0]), *last[1])",
            "return",
        ),
    ),
    bug(
        "a cancelled timer fires",
        ("engine.timers:DueTimes.discard", "self._items.pop(key, None)", "pass"),
        ("hub.hub:_is_open", "message.timer[1] in instance.timers and", ""),
    ),
    bug(
        "a timer fires twice",
        ("engine.timers:DueTimes._wake", "self._fire(entry[1])", "self._fire(entry[1]); self._fire(entry[1])"),
        ("hub.hub:_is_open", "and message.timer[1] not in instance.answered", ""),
    ),
    # Ends, children
    bug("an end does not wake the parent", ("hub.lifecycle:end_instance", "tell_parent(transition, instance)", "pass")),
    bug(
        "an end leaves its activities and timers",
        ("hub.lifecycle:end_instance", "transition.remove_all_work(instance)", "pass"),
    ),
    bug(
        "an end does not wake clients", ("engine.outputs:Outputs.act_on", "self._waiters.stopped(output.state)", "pass")
    ),
    bug(
        "a terminated instance goes on",
        ("hub.episodes:has_episode", "or instance.is_terminal", ""),
        ("hub.hub:Hub.deliver", "if instance is None or instance.is_terminal:", "if instance is None:"),
    ),
    bug(
        "a suspended instance goes on",
        ("hub.episodes:has_episode", "or instance.status is OrchestrationStatus.SUSPENDED", ""),
    ),
    bug(
        "the status is not stored with the end",
        (
            "engine.rows:instance_row",
            "str(instance.status)",
            "('Running' if instance.status == 'Failed' else str(instance.status))",
        ),
    ),
    bug(
        "a rewind forgets what was achieved",
        ("hub.rewinds:_go_back", "for work in plan.remembered:", "for work in ():"),
    ),
    # Entities and locks
    bug(
        "an entity is locked although it is",
        (
            "hub.entities:_changes_lock",
            "return instance.lock is None",
            "return True",
        ),
    ),
    bug(
        "a lock change that comes right behind another one is lost",
        ("hub.entities:apply_lock_changes", "_apply_lock_change(transition, instance, following)", "pass"),
    ),
    bug(
        "an instance whose step found no room never takes it",
        ("engine.turns:Turns.put_back", "self._runnable.appendleft(resident)", "pass"),
    ),
    bug(
        "operations of others run in a locked entity",
        ("hub.entities:_may_run", "return section_id ==", "return True or section_id =="),
    ),
    bug(
        "the end of an orchestration keeps its locks",
        ("hub.lifecycle:end_instance", "release_locks(transition, instance)", "pass"),
    ),
    bug(
        "an operation is applied, and not consumed",
        (
            "hub.entities:complete_batch",
            "transition.consume(instance, pending.messages[: len(batch.outcomes)])",
            "pass",
        ),
    ),
    bug(
        "the lock is not stored",
        ("engine.rows:_encode_lock", "return None if lock is None else", "return None if True else"),
    ),
    # Replay
    bug(
        "uuids differ on replay",
        ("replay.deterministic:deterministic_uuid", "return uuid.uuid5(", "return uuid.uuid4() or uuid.uuid5("),
    ),
    bug(
        "random numbers differ on replay",
        (
            "replay.deterministic:deterministic_random",
            "return random.Random(",
            "return random.SystemRandom() or random.Random(",
        ),
    ),
    bug(
        "an unloaded instance starts from scratch",
        ("engine.steps:Steps._replay", "None, history)", "None, history[:-1])"),
    ),
    # Storage
    bug(
        "rows that are made and used up in one group are stored after all",
        ("engine.coalesce:_Made.remove", "self.made.pop(key, None)", "self.made.get(key)"),
    ),
    bug(
        "SQLite keeps a message that is consumed",
        ("storage.sqlite.writes:encode", "check_disjoint(writes)", "writes.messages_removed.clear()"),
    ),
)
"""Grouped by what they break. Names are what the table of detection shows."""


@contextlib.contextmanager
def planted(bug: PlantedBug) -> Iterator[None]:
    """Let the engine have a bug for a while."""
    changed: dict[str, list[Edit]] = {}
    for edit in bug.edits:
        changed.setdefault(edit.function, []).append(edit)
    before = {}
    try:
        for name, edits in changed.items():
            function = _find(name)
            before[function] = function.__code__
            function.__code__ = _with(function, edits).__code__
        yield
    finally:
        for function, code in before.items():
            function.__code__ = code


def _find(name: str) -> FunctionType:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(f"holdfast.{module}")
    for each in path.split("."):
        found = inspect.getattr_static(found, each)
    return found.__func__ if isinstance(found, staticmethod | classmethod) else found


def _with(function: FunctionType, edits: list[Edit]) -> FunctionType:
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        if source.count(edit.old) != 1:
            raise AssertionError(f"{edit.function} has {edit.old!r} {source.count(edit.old)} times; mend the bug")
        source = source.replace(edit.old, edit.new)
    body = source[source.index("async def " if inspect.iscoroutinefunction(function) else "def ") :]
    code = compile(body, f"<planted in {function.__qualname__}>", "exec", __future__.annotations.compiler_flag, True)
    namespace: dict[str, Any] = {}
    exec(code, function.__globals__, namespace)
    return namespace[function.__name__]
