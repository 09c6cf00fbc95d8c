"""Steps: what instances do when it is their turn, several together and stage by stage.

All of them go through one stage before any goes on to the next. Each reads and changes its own instance alone until its
transition is in the journal, and none is numbered that is not there before anything else happens; so it is as if they
went one after the other. But the processor does one thing many times then, and not many things once each: it has that
at hand, and is up to four times as fast at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeAlias

from holdfast.engine.blocking import tell_if_blocked
from holdfast.engine.extent import extent_of
from holdfast.engine.residents import Resident
from holdfast.engine.worker import Worker
from holdfast.hub.entities import PendingBatch
from holdfast.hub.episodes import PendingEpisode
from holdfast.hub.transition import Transition
from holdfast.model.work_items import Blocked, EntityBatch, Episode, EpisodeResult, VersionRejected

if TYPE_CHECKING:
    from holdfast.engine.node import Node

_Pending: TypeAlias = PendingEpisode | PendingBatch
_Result: TypeAlias = EpisodeResult | EntityBatch
_Begun: TypeAlias = tuple[Resident, _Pending]
_Done: TypeAlias = tuple[Resident, _Pending, _Result]

_INSTEAD: Final = "let an activity do what takes long"


class Steps:
    def __init__(self, node: Node, worker: Worker) -> None:
        self._node = node
        self._worker = worker
        self._at: Resident | None = None
        """Whose step is being taken: an error is blamed on it."""

    def take(self, residents: Iterable[Resident], until: float) -> None:
        """Let each instance take a step, if it has something to do.

        Those whose code has not run by `until`, in the time of the loop, take their step later; the first one takes it
        in any case. An error is a bug of ours: the node is given up.
        """
        self._at = None
        try:
            self._complete(self._run(self._begin(residents), until))
        except BaseException as error:
            self._node.blame(None if self._at is None else self._at.instance.instance_id, error)

    def _begin(self, residents: Iterable[Resident]) -> list[_Begun]:
        """Take the work that waits for the code of each instance; do at once what needs no code."""
        node, now = self._node, self._node.clock.now()
        begun: list[_Begun] = []
        for resident in self._step(residents):
            self._at, instance = resident, resident.instance
            if not node.hub.has_work(instance):
                node.suspects.has_worked(instance)
            elif node.suspects.may_work(instance):
                begun.append((resident, node.hub.next_work(instance, now)))
        return begun

    def _step(self, residents: Iterable[Resident]) -> list[Resident]:
        """Let those instances take a step that need no code for it; return the others."""
        node, now = self._node, self._node.clock.now()
        stepped: list[tuple[Resident, Transition]] = []
        others: list[Resident] = []
        for resident in self._present(residents):
            self._at = resident
            transition = node.hub.step(resident.instance, now)
            if transition is None:
                others.append(resident)
            else:
                stepped.append((resident, transition))
        self._finish(stepped)
        return others

    def _present(self, residents: Iterable[Resident]) -> list[Resident]:
        """Return those that are in memory and do not read their history to rewind."""
        present: list[Resident] = []
        for resident in residents:
            if resident.is_present and not self._node.is_abandoned:
                self._at = resident
                if not self._node.rewinds.begin(resident):
                    present.append(resident)
        return present

    def _run(self, begun: list[_Begun], until: float) -> list[_Done]:
        """Run the code of each; return what has ended, which is not what waits for the store or for something else.

        Whoever finds no time, or no room for what may come of it, is put back.
        """
        clock, journal = asyncio.get_running_loop().time, self._node.journal
        room, room_chars, now = journal.room, journal.room_bytes, clock()
        done: list[_Done] = []
        for position, (resident, pending) in enumerate(begun):
            if position and (now >= until or room <= 0 or room_chars <= 0):
                self._put_back(begun[position:])
                break
            self._at, began_at = resident, now
            if isinstance(pending, PendingEpisode):
                result = self._run_episode(resident, pending)
            else:
                result = self._node.batches.run(resident, pending)
            if result is not None:
                done.append((resident, pending, result))
                actions, chars = extent_of(result)
                room, room_chars = room - 1 - actions, room_chars - chars
            now = clock()
            if now >= until and isinstance(pending, PendingEpisode):
                tell_if_blocked(now - began_at, f"Orchestrator {pending.work_item.name!r}", _INSTEAD)
        return done

    def _put_back(self, begun: list[_Begun]) -> None:
        for resident, pending in begun:
            self._node.hub.give_back(resident.instance, pending)
        self._node.turns.put_back([resident for resident, _ in begun])

    def _run_episode(self, resident: Resident, pending: PendingEpisode) -> EpisodeResult | None:
        """Run an episode on the live execution, or on a new one; else later, once the history was read."""
        work_item, live = pending.work_item, resident.execution
        if live is not None and (live.execution_id, live.episodes) != (work_item.execution_id, work_item.past_episodes):
            live.unload()
            live = resident.execution = None
        if live is None and work_item.past_episodes:
            self._node.with_history(resident.instance, lambda history: self._replay(resident, pending, history))
            return None
        result, resident.execution = self._worker.run_episode(work_item, live, None)
        return result

    def _replay(self, resident: Resident, pending: PendingEpisode, history: list[str]) -> None:
        clock = asyncio.get_running_loop().time
        began_at = clock()
        result, resident.execution = self._worker.run_episode(pending.work_item, None, history)
        who = f"The replay of {len(history)} episodes of orchestrator {pending.work_item.name!r}"
        tell_if_blocked(clock() - began_at, who, f"{_INSTEAD}, or keep its history short by ctx.continue_as_new()")
        self.complete(resident, pending, result)

    def complete(self, resident: Resident, pending: _Pending, result: _Result) -> None:
        """Make of what user code has done a transition, or set its instance aside."""
        self._complete([(resident, pending, result)])

    def _complete(self, done: list[_Done]) -> None:
        now = self._node.clock.now()
        stepped: list[tuple[Resident, Transition]] = []
        set_aside: list[_Done] = []
        for each in done:
            resident, pending, result = each
            self._at = resident
            transition = self._transition(resident, pending, result, now)
            if transition is None:
                set_aside.append(each)
            else:
                stepped.append((resident, transition))
        self._finish(stepped)
        for resident, pending, result in set_aside:
            self._at = resident
            self._set_aside(resident, pending, result)

    def _transition(self, resident: Resident, pending: _Pending, result: _Result, now: datetime) -> Transition | None:
        """Return what code has led to; None if the instance is to be set aside."""
        hub, instance = self._node.hub, resident.instance
        if self._node.parking.is_guilty(instance):
            return None
        if isinstance(pending, PendingEpisode):
            return hub.complete_episode(instance, pending, result, now) if isinstance(result, Episode) else None
        return hub.complete_batch(instance, pending, result, now) if isinstance(result, EntityBatch) else None

    def _set_aside(self, resident: Resident, pending: _Pending, result: _Result) -> None:
        """Park an instance, or let it wait for a host with its code."""
        guilty = self._node.parking.take_guilty(resident.instance)
        match pending, result:
            case _ if guilty is not None:
                self._node.parking.set_aside(resident, pending, guilty)
            case _, Blocked():
                self._node.parking.set_aside(resident, pending, result.details)
            case PendingEpisode(), VersionRejected():
                self._let_wait(resident, pending)
            case _:
                raise AssertionError(f"{result!r} is no result of {pending!r}")

    def _let_wait(self, resident: Resident, pending: PendingEpisode) -> None:
        """Let an instance wait for a host with its code; what came meanwhile for it as a whole is still done here."""
        node, instance = self._node, resident.instance
        transition = node.hub.reject(instance, pending, node.clock.now())
        if transition is not None:
            node.append(transition)
        node.suspects.has_worked(instance)
        if instance.controls:
            node.make_runnable(resident)

    def finish(self, resident: Resident, transition: Transition) -> None:
        """Append a transition of an instance, and let it take its next step."""
        self._finish([(resident, transition)])

    def _finish(self, stepped: list[tuple[Resident, Transition]]) -> None:
        node = self._node
        for resident, transition in stepped:
            self._at = resident
            node.enter(transition)
        node.deliver_sent()
        if node.is_abandoned:
            return  # what was delivered has shown a bug of ours
        for resident, _ in stepped:
            self._at = resident
            instance, execution = resident.instance, resident.execution
            node.suspects.has_worked(instance)
            if execution is not None and (instance.is_terminal or instance.execution_id != execution.execution_id):
                execution.unload()
                resident.execution = None
            node.residents.touch(resident)
            node.make_runnable(resident)
