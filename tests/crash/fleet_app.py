"""One host of a fleet under load, for the tests that kill, pause and move it; its app is that of crash_app.py.

`fleet_app.py STORE LOG NAME` works until it is killed, or told on its standard input what to do, a line each:
`quiet` ends the load, `finish IDS` waits for everything that was ever started and says what there is, `stop` stops,
as SIGTERM does. It says on its standard output what was acknowledged: `try`, `ack` or `end`, and of what.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta

from crash_app import (
    ACCOUNTS,
    EXPECTED,
    WORK,
    Tally,
    app,
    chain,
    doomed,
    payment,
    race,
    say,
    still_locked,
)

from holdfast import (
    Client,
    EntityId,
    HostConfig,
    HostStoppedError,
    InstanceQuery,
    Limits,
    OrchestrationStatus,
    StorageError,
)
from holdfast.errors import HostUnreachableError, InstanceNotRunningError, OverloadedError, WaitTimeoutError
from holdfast.model.history import TaskScheduled

CONFIG = HostConfig(limits=Limits(deliveries_max=1_000_000), renew_s=0.5, drain_s=0.5, poll_s=0.5)
"""Kills come so fast here that the innocent would be suspected of them."""
MAY_PASS = (StorageError, OverloadedError, HostUnreachableError)
WAITS_MAX = 50
GOES_ON = InstanceQuery(
    statuses=[OrchestrationStatus.PENDING, OrchestrationStatus.RUNNING, OrchestrationStatus.SUSPENDED]
)
SOON = timedelta(seconds=60)
"""How long anything may take while hosts come and go; only a failing test waits that long."""


class Load:
    """Clients of one host, which ask for instances of all hosts."""

    def __init__(self, client: Client, name: str, pause_s: float) -> None:
        self._client = client
        self._name = name
        self._pause_s = pause_s
        self._waits = asyncio.Semaphore(WAITS_MAX)
        self._waiting = set[asyncio.Task[None]]()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as jobs:
            for worker in range(3):
                jobs.create_task(self._each(lambda number, worker=worker: self._start(worker, number)))
            for kind in (self._start_with_new_id, self._race, self._pay, self._doom, self._signal, self._call):
                jobs.create_task(self._each(kind))

    async def _each(self, request: Callable[[int], Awaitable[None]]) -> None:
        """Go on for ever; what a request has come to is not known if its host, or the store, fails meanwhile."""
        for number in itertools.count(1):
            try:
                await request(number)
            except MAY_PASS:
                await asyncio.sleep(0.02)
            await asyncio.sleep(self._pause_s)

    async def _start(self, worker: int, number: int) -> None:
        orchestrator, value = WORK[(worker + number) % len(WORK)]
        instance_id = f"{orchestrator.name}-{self._name}-{worker}-{number}"
        say("try", instance_id)
        await self._client.start_new(orchestrator.name, value, instance_id=instance_id)
        say("ack", instance_id)
        if number % 2:
            await self._wait(instance_id)

    async def _start_with_new_id(self, _: int) -> None:
        handle = await self._client.start_new(chain, 4)
        say("try", handle.instance_id)
        say("ack", handle.instance_id)
        await self._wait(handle.instance_id)

    async def _wait(self, instance_id: str) -> None:
        """Wait beside the load for the end of what was acknowledged."""

        async def wait() -> None:
            try:
                result = await self._client.wait_for_completion(instance_id, timeout=SOON)
                expected = EXPECTED.get(instance_id.partition("-")[0], 4)
                say("end" if result == expected else "wrong", instance_id)
            except (*MAY_PASS, HostStoppedError):
                pass
            except WaitTimeoutError:
                say("late", instance_id)
            except Exception as error:  # whatever it is, it may not be
                say("wrong", f"{instance_id}:{type(error).__name__}")
            finally:
                self._waits.release()

        await self._waits.acquire()
        job = asyncio.create_task(wait())
        self._waiting.add(job)
        job.add_done_callback(self._waiting.discard)

    async def _race(self, number: int) -> None:
        instance_id = f"race-{self._name}-{number}"
        say("try", instance_id)
        await self._client.start_new(race, 5, instance_id=instance_id)
        await asyncio.sleep(0.004)
        await self._client.raise_event(instance_id, "go", "now")
        say("ack", instance_id)
        await self._wait(instance_id)

    async def _pay(self, number: int) -> None:
        instance_id = f"payment-{self._name}-{number}"
        say("try", instance_id)
        await self._client.start_new(payment, number, instance_id=instance_id)
        say("ack", instance_id)
        await asyncio.sleep(0.1)  # they take long, as each has to wait for many others

    async def _doom(self, number: int) -> None:
        instance_id = f"doomed-{self._name}-{number}"
        say("try", instance_id)
        await self._client.start_new(doomed, number, instance_id=instance_id)
        await asyncio.sleep(0.003 * (number % 5))
        await self._client.terminate(instance_id)
        say("ack", instance_id)

    async def _signal(self, _: int) -> None:
        say("try", "signal")
        await self._client.signal_entity(EntityId(Tally, "signals"), Tally.add, 1)
        say("ack", "signal")

    async def _call(self, _: int) -> None:
        say("try", "call")
        await self._client.call_entity(EntityId(Tally, "calls"), Tally.add, 1, timeout=SOON)
        say("ack", "call")


async def insist(request: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await request()
        except InstanceNotRunningError:
            return
        except MAY_PASS:
            await asyncio.sleep(0.1)
        else:
            return


async def end_all(client: Client) -> None:
    """Do for those whose clients were killed what these had still to do, and wait until all has ended.

    Raises:
        TimeoutError: if something does not end.
    """
    async with asyncio.timeout(SOON.total_seconds()):
        going_on = [""]
        while going_on:
            going_on = [each.instance_id async for each in client.iterate_instances(GOES_ON)]
            for id_ in going_on:
                if id_.startswith("race"):
                    await insist(lambda id_=id_: client.raise_event(id_, "go", "now", key="go"))
                elif id_.startswith("doomed"):
                    await insist(lambda id_=id_: client.terminate(id_))
            await asyncio.sleep(0.1)


async def finish(client: Client) -> None:
    """Wait until all has ended, and say what there is: results, entities, and every scheduled activity."""
    try:
        await end_all(client)
    except TimeoutError:
        say("stuck", *[each.instance_id async for each in client.iterate_instances(GOES_ON)])
        return
    scheduled, results = list[tuple[str, str, int]](), dict[str, object]()
    async for status in client.iterate_instances():
        state = status.state
        results[status.instance_id] = (
            status.runtime_status.value
            if status.runtime_status is not OrchestrationStatus.COMPLETED
            else json.loads(state.output or "null")
        )
        scheduled += [
            (status.instance_id, state.execution_id, event.event_id)
            for event in await client.get_history(status.instance_id)
            if isinstance(event, TaskScheduled)
        ]
    totals: dict[str, int] = {}
    for key in ("signals", "calls", "source", "target", *(account.key for account in ACCOUNTS)):
        tally = await client.read_entity_state(EntityId(Tally, key))
        totals[key] = tally.total if tally else 0
    found = {"results": results, "totals": totals, "scheduled": scheduled, "locked": await still_locked(client)}
    say("found", json.dumps(found))


async def obey(client: Client, load: asyncio.Task[None], lines: asyncio.Queue[str]) -> None:
    """Do as is told until it is `stop`."""
    while (line := await lines.get()) not in ("stop", ""):
        if line == "quiet":
            load.cancel()
            await asyncio.wait({load})
            say("quiet")
        elif line == "finish":
            await finish(client)


async def main() -> None:
    url, _, name = sys.argv[1:4]
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("holdfast").setLevel(logging.INFO)
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, lambda: lines.put_nowait(sys.stdin.readline().strip()))
    loop.add_signal_handler(signal.SIGTERM, lines.put_nowait, "stop")
    while True:
        is_ready = False
        try:
            async with app.host(url, config=CONFIG) as host:
                is_ready = True
                say("ready")
                load = asyncio.create_task(Load(host.client, name, 0.02).run())
                try:
                    await obey(host.client, load, lines)
                finally:
                    load.cancel()
                    await asyncio.wait({load})
                if not load.cancelled() and load.exception() is not None:
                    raise AssertionError("the load has failed") from load.exception()
        except StorageError:
            if is_ready:
                raise
            await asyncio.sleep(0.05)  # the server is just being started, perhaps
        else:
            say("stopped")
            return


if __name__ == "__main__":
    asyncio.run(main())
