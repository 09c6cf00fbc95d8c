"""Every call of the store fails once, or the process dies at it: the results are those of a run without failures."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from crash_kit import CONFIG, CarefulClient, check_cold, check_finished, make_crash_app, store_url, workload
from engine_kit import World
from postgres_rows import rows_in_postgres
from store_check import Rows, rows_in_file, rows_in_memory

from holdfast import Client
from holdfast.codec.converter import JsonConverter
from holdfast.engine.engine import Engine
from holdfast.engine.task_hub import LocalTaskHub
from holdfast.errors import CommitFailedError, StorageError
from holdfast.storage.memory import MemoryData, MemoryStore
from holdfast.storage.open_store import open_store
from holdfast.storage.port import Store
from postgres_kit import drop, new_schema

HOWS = ("refused", "unanswered", "dies before", "dies after")
METHODS = {
    "acquire": 1,
    "commit": 60,
    "load": 5,
    "load_history": 2,
    "activities_visible": 1,
    "timers_due": 1,
    "instances_with_messages": 1,
    "entities": 1,
    "release": 1,
}
"""The methods that the workload calls, and how often at least. `read_instance` is called or not, as it happens."""

if TYPE_CHECKING:
    _Wrapper = Any
else:
    _Wrapper = object


class Plan:
    """Which call of which method goes wrong, and how; calls are counted over all lives of the process."""

    def __init__(self, method: str, call: int, how: str) -> None:
        self.method = method
        self.call = call
        self.how = how
        self.calls = 0

    @property
    def is_reached(self) -> bool:
        return self.calls >= self.call


class BreakingStore(_Wrapper):
    """Passes everything on to a store, but one call fails, or is the last that this process ever makes."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self._store = store
        self._plan = plan
        self.died = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **options: Any) -> Any:
            if name == "close":
                return await method()
            await self._never_if_dead()
            self._plan.calls += name == self._plan.method
            is_it = name == self._plan.method and self._plan.calls == self._plan.call
            if is_it and self._plan.how == "refused":
                raise CommitFailedError("planted") if name == "commit" else StorageError("planted")
            if is_it and self._plan.how == "dies before":
                self.died.set()
            await self._never_if_dead()
            answer = await method(*args, **options)
            if is_it and self._plan.how == "unanswered":
                raise (
                    CommitFailedError("planted", outcome_unknown=True) if name == "commit" else StorageError("planted")
                )
            if is_it and self._plan.how == "dies after":
                self.died.set()
            await self._never_if_dead()
            return answer

        return call

    async def _never_if_dead(self) -> None:
        if self.died.is_set():
            await asyncio.Event().wait()


async def live(store: Store, plan: Plan, world: World) -> dict[str, object] | None:
    """Be a process with a host and its client, until the work is done, or it dies; then return None."""
    breaking = BreakingStore(store, plan)
    converter = JsonConverter(payload_bytes_max=CONFIG.limits.payload_bytes_max)
    engine = Engine(make_crash_app(world).registry, breaking, converter, CONFIG)

    async def work() -> dict[str, object] | None:
        try:
            await engine.start()
        except StorageError:
            return None
        results = await workload(CarefulClient(Client(LocalTaskHub(engine), converter, CONFIG.limits)))
        await engine.stop()
        return results

    working, dying = asyncio.ensure_future(work()), asyncio.ensure_future(breaking.died.wait())
    await asyncio.wait({working, dying}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        return working.result()
    await store.close()  # all that the end of a process does: nothing that goes on can store anything any more
    if engine.is_ready:
        engine.node.abandon()  # or its timers would fire while the loop is being closed
    await end_tasks()
    return None


async def end_tasks() -> None:
    """End what would have ended with the process, and what that still begins; or a later test hears of it."""
    quiet_turns = 0
    while quiet_turns < 3:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        quiet_turns = 0 if tasks else quiet_turns + 1
        await (asyncio.wait(tasks) if tasks else asyncio.sleep(0))


def lives(make_store: Callable[[], Store], read_rows: Callable[[], Rows], plan: Plan) -> bool:
    """Run the workload in as many processes as it takes; return whether the call was reached."""
    world = World()
    for _ in range(3):
        results = asyncio.run(live(make_store(), plan, world))
        if results is not None:
            check_finished(read_rows(), world, results)
            return plan.is_reached
        check_cold(read_rows())
    raise AssertionError("it does not get anywhere")


def through_memory(plan: Plan) -> bool:
    data = MemoryData()
    return lives(lambda: MemoryStore(data), lambda: rows_in_memory(data), plan)


def through_file(folder: Path, plan: Plan) -> bool:
    path = folder / f"{plan.method}{plan.call}.db"
    return lives(lambda: open_store(store_url(path)), lambda: rows_in_file(path), plan)


def through_postgres(server_url: str, plan: Plan) -> bool:
    url = new_schema(server_url, partitions=4)
    try:
        return lives(lambda: open_store(url), lambda: rows_in_postgres(url), plan)
    finally:
        drop(url)


def each_call(
    how: str, through: Callable[[Plan], bool], commit_stride: int = 1, methods: Iterable[str] = METHODS
) -> int:
    """Let one call after the other go wrong, until the workload finishes without reaching it; return how many."""
    total = 0
    for method, calls_min in ((each, METHODS[each]) for each in methods):
        stride = commit_stride if method == "commit" else max(1, commit_stride // 6)
        first = 1 + HOWS.index(how) % stride if calls_min > stride else 1
        calls = itertools.count(first, stride) if calls_min > 1 or commit_stride == 1 else [1]
        reached = list(takewhile(lambda call: through(Plan(method, call, how)), calls))  # noqa: B023 - used up at once
        assert reached, f"the workload does not call {method}"
        assert reached[-1] >= calls_min - stride, f"the workload calls {method} too seldom to test anything"
        total += len(reached)
    return total


@pytest.mark.parametrize("how", HOWS)
def test_calls_of_the_memory_store_go_wrong(how: str, survived: Callable[[str, int], None]) -> None:
    """A quarter of the commits in each way, so that each goes wrong in one, and all of the rarer calls."""
    survived("storage calls that went wrong", each_call(how, through_memory, commit_stride=4))


@pytest.mark.parametrize("how", HOWS)
def test_calls_of_the_sqlite_store_go_wrong(how: str, tmp_path: Path, survived: Callable[[str, int], None]) -> None:
    survived("storage calls that went wrong", each_call(how, partial(through_file, tmp_path), commit_stride=60))


@pytest.mark.parametrize("how", ["unanswered", "dies after"])
def test_calls_of_the_postgres_store_go_wrong(
    how: str, postgres_server: str, survived: Callable[[str, int], None]
) -> None:
    """Only those after which it is not known what is stored. The engine cannot tell one store from another."""
    through = partial(through_postgres, postgres_server)
    survived("storage calls that went wrong", each_call(how, through, 60, ("acquire", "commit")))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", HOWS)
def test_each_call_of_the_postgres_store_goes_wrong(
    how: str, postgres_server: str, survived: Callable[[str, int], None]
) -> None:
    survived("storage calls that went wrong", each_call(how, partial(through_postgres, postgres_server)))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", HOWS)
def test_each_call_of_either_store_goes_wrong(how: str, tmp_path: Path, survived: Callable[[str, int], None]) -> None:
    calls = each_call(how, through_memory) + each_call(how, partial(through_file, tmp_path))
    survived("storage calls that went wrong", calls)
