"""More timers than are kept in memory: the next ones are there, the others wait in the store, and none is lost."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from engine_kit import SOON, Run, until
from entity_kit import MakeStore, on
from test_entity_schedules import SetClock

from holdfast import App, HostConfig, OrchestrationContext, RetryPolicy
from holdfast.engine.timers import DueTimes, Place

MANY = 60
FEW = HostConfig(timers_max=2, drain_s=0.2)


@pytest.mark.parametrize("seed", range(20))
def test_each_item_comes_once_in_time_whatever_is_left_to_the_store(seed: int) -> None:
    """Against a store that is a dict: what is read of it is what `go_on` says, a page at a time."""
    dice, clock, begin = random.Random(seed), SetClock(), SetClock().time
    stored: dict[tuple[str, int], datetime] = {}
    fired: list[Place] = []
    kept_max = 0

    def fire(place: Place) -> None:
        fired.append(place)
        del stored[place[1]]

    def read_on(times: DueTimes[Place], page: int, pages: int) -> None:
        after = times.go_on()
        for _ in range(pages):
            places = sorted((due, key) for key, due in stored.items() if due <= times.horizon())
            rows = [place for place in places if after is None or place > after][:page]
            for due, key in rows:
                times.add(key, due, (due, key))
            if len(rows) < page:
                return
            after = rows[-1]
        if after is not None:
            times.leave_after(*after)

    async def main() -> None:
        nonlocal kept_max
        times = DueTimes[Place](clock, 600, 5, 1.0, fire)
        for number in range(600):
            match dice.choice(("add", "add", "add", "discard", "pass")):
                case "add":
                    due = begin + timedelta(seconds=dice.choice((5, 60, 300, dice.randint(0, 500))))
                    key = ("e", number)
                    stored[key] = max(due, clock.time)
                    times.add(key, stored[key], (stored[key], key))
                case "discard" if stored:
                    key = dice.choice(list(stored))
                    del stored[key]
                    times.discard(key)
                case _:
                    clock.time += timedelta(seconds=dice.choice((0, 1)))
                    times._wake()
                    while times.has_room:
                        read_on(times, page=4, pages=dice.choice((1, 2, 3)))
                        times._wake()
                    assert all(due > clock.time for due in stored.values())
            kept_max = max(kept_max, len(times._items))
            assert times.has_overflowed or times._items.keys() == stored.keys()
        times.clear()

    asyncio.run(main())
    assert kept_max == 10, "twice as many as are kept, before the latest leave"
    assert len(fired) == len({key for _, key in fired})
    assert len(fired) > 50


def test_what_is_taken_back_leaves_no_trace() -> None:
    """As the limits of waits do that end in time: they would stay until they are due."""

    async def main() -> None:
        clock = SetClock()
        times = DueTimes[int](clock, 600, 20_000, 1.0, lambda _: None)
        for number in range(20_000):
            times.add(("e", number), clock.time + timedelta(seconds=500), number)
            if number >= 5:
                times.discard(("e", number))
        assert len(times._items) == 5
        assert len(times._heap) < 1_100
        times.clear()

    asyncio.run(main())


def make_app() -> App:
    app = App()

    @app.activity(retry=RetryPolicy(max_attempts=2, first_retry_interval=timedelta(milliseconds=150)))
    async def works_when_tried_again(number: int) -> int:
        raise ValueError(number)

    @app.orchestrator
    async def sleeps(ctx: OrchestrationContext, duration_ms: int) -> int:
        await ctx.create_timer(timedelta(milliseconds=duration_ms))
        return duration_ms

    @app.orchestrator
    async def tries(ctx: OrchestrationContext, number: int) -> str:
        try:
            await ctx.call_activity(works_when_tried_again, number)
        except Exception as error:
            return type(error).__name__
        return "done"

    return app


def test_more_timers_and_retries_than_are_kept_in_memory(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        sleepers = [await run.client.start_new("sleeps", 100 + 10 * (n % 20)) for n in range(MANY)]
        triers = [await run.client.start_new("tries", n) for n in range(20)]
        assert len(run.engine.node.timers._items) <= 2 * FEW.timers_max
        results: list[Any] = [await each.wait_for_completion(timeout=SOON) for each in sleepers]
        assert results == [100 + 10 * (n % 20) for n in range(MANY)]
        assert {await each.wait_for_completion(timeout=SOON) for each in triers} == {"ValueError"}
        await until(lambda: not run.engine.node.timers.has_overflowed)

    on(make_store(), make_app(), scenario, FEW)


def test_a_host_starts_on_more_timers_than_it_keeps_in_memory(make_store: MakeStore) -> None:
    async def before(run: Run) -> None:
        for n in range(MANY):
            await run.client.start_new("sleeps", 60_000 if n % 3 else 300, instance_id=f"s{n}")

    async def after(run: Run) -> None:
        due = [f"s{n}" for n in range(MANY) if n % 3 == 0]
        assert {await run.client.wait_for_completion(each, timeout=SOON) for each in due} == {300}
        assert run.engine.node.timers.has_overflowed
        assert len(run.engine.node.timers._items) <= 2 * FEW.timers_max

    on(make_store(), make_app(), before, FEW)
    on(make_store(), make_app(), after, FEW)
