"""The synchronous client: the same methods as the async one, from any thread, and after a fork."""

from __future__ import annotations

import asyncio
import errno
import gc
import inspect
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_overloads

import pytest
from client_kit import KEY, SOON, Order, Receipt, Switch, make_app, on_port, serving, sqlite

from holdfast import (
    App,
    Client,
    ConfigurationError,
    Host,
    HostStoppedError,
    HostUnreachableError,
    InstanceNotFoundError,
    InstanceQuery,
    OrchestrationHandle,
    SyncClient,
    SyncOrchestrationHandle,
)
from holdfast.errors import StoreInUseError

# Nothing drifts

TWINS = [(Client, SyncClient), (OrchestrationHandle, SyncOrchestrationHandle)]
_OWN = {"close", "connect", "hosting", "on_loop"}
"""What only a client that blocks needs."""


def methods(cls: type) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(cls, inspect.isfunction) if name[0] != "_"}


def shape(function: Any) -> tuple[list[tuple[str, Any, str, str]], str]:
    """Return the parameters of a function, and what it returns, as they are written."""
    signature = inspect.signature(function)
    parameters = [
        (each.name, each.kind, repr(each.default), str(each.annotation)) for each in signature.parameters.values()
    ]
    returned = str(signature.return_annotation).replace("AsyncIterator", "Iterator")
    return parameters, re.sub(r"\b(?:Sync)?OrchestrationHandle", "Handle", returned)


@pytest.mark.parametrize(("near", "twin"), TWINS)
def test_a_twin_has_the_same_methods_parameters_overloads_and_results(near: type, twin: type) -> None:
    expected, found = methods(near), methods(twin)
    assert set(found) - _OWN == set(expected)
    for name, method in expected.items():
        assert shape(found[name]) == shape(method), name
        overloads = [[shape(each) for each in get_overloads(function)] for function in (found[name], method)]
        assert overloads[0] == overloads[1], name
        assert not inspect.iscoroutinefunction(found[name])


# Threads


@pytest.fixture
def hosted() -> Generator[SyncClient]:
    app, _ = make_app(Switch())
    with SyncClient.hosting(app.host("memory://")) as client:
        yield client


def test_a_host_in_a_thread_of_its_own(tmp_path: Path) -> None:
    app, functions = make_app(Switch())
    with SyncClient.hosting(app.host(sqlite(tmp_path))) as client:
        run = client.start_new(functions.buy, Order("tea"), instance_id="one")
        assert run.wait_for_completion(timeout=SOON) == Receipt("2 x tea")
    with SyncClient.hosting(make_app(Switch())[0].host(sqlite(tmp_path))) as client:
        assert client.wait_for_completion("one") == {"text": "2 x tea"}
        with pytest.raises(StoreInUseError):
            SyncClient.hosting(make_app(Switch())[0].host(sqlite(tmp_path)))


def test_many_threads_use_one_client(hosted: SyncClient) -> None:
    def order(number: int) -> Any:
        run = hosted.start_new("buy", {"item": "tea", "amount": number})
        return run.wait_for_completion(timeout=SOON)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(order, range(40))) == [{"text": f"{2 * number} x tea"} for number in range(40)]
    assert sum(1 for _ in hosted.iterate_instances()) == 40


def test_on_its_own_loop_it_refuses_instead_of_waiting_for_itself() -> None:
    async def main() -> None:
        app, _ = make_app(Switch())
        host = app.host("memory://")
        with pytest.raises(ConfigurationError, match="not been started"):
            _ = host.sync_client
        async with host:
            with pytest.raises(ConfigurationError, match="use the async client"):
                host.sync_client.get_status("one")
            assert await asyncio.to_thread(host.sync_client.get_status, "one") is None

    asyncio.run(main())


def test_it_can_be_used_beside_another_loop(hosted: SyncClient) -> None:
    """As a Django view does under ASGI: it blocks its own loop, and not that of the client."""

    async def view() -> Any:
        return hosted.start_new("buy", {"item": "tea"}).wait_for_completion(timeout=SOON)

    assert asyncio.run(view()) == {"text": "2 x tea"}


def test_an_iteration_may_be_left(hosted: SyncClient) -> None:
    for number in range(3):
        hosted.start_new("approve", instance_id=f"a{number}")
    for found in hosted.iterate_instances():
        assert found.instance_id == "a0"
        break
    gc.collect()  # what is left over is finished on the loop, without a warning
    assert [each.instance_id for each in hosted.iterate_instances()] == ["a0", "a1", "a2"]


# Closing


def test_a_closed_client_says_so() -> None:
    app, _ = make_app(Switch())
    client = SyncClient.hosting(app.host("memory://"))
    handle = client.start_new("approve")
    waiting = ThreadPoolExecutor(1).submit(handle.wait_for_completion)
    while not client.count_instances(InstanceQuery(statuses=["Running"])):
        time.sleep(0.01)
    client.close()
    client.close()
    with pytest.raises(HostStoppedError):
        waiting.result(timeout=30)
    for use in (lambda: client.get_status("one"), handle.get_status):
        with pytest.raises(HostStoppedError, match="closed"):
            use()


def test_what_goes_wrong_as_a_host_is_left_is_raised_by_whoever_closes_it() -> None:
    class Stubborn:
        def __init__(self) -> None:
            self.host = make_app(Switch())[0].host("memory://")

        async def __aenter__(self) -> Host:
            return await self.host.__aenter__()

        async def __aexit__(self, *error: Any) -> None:
            await self.host.stop()
            raise OSError("the disk is gone")

    client = SyncClient.hosting(Stubborn())
    assert client.get_status("one") is None
    with pytest.raises(OSError, match="the disk is gone"):
        client.close()


def test_a_client_of_a_host_that_has_stopped_says_so() -> None:
    async def main() -> SyncClient:
        async with make_app(Switch())[0].host("memory://") as host:
            return host.sync_client

    with pytest.raises(HostStoppedError, match="closed"):
        asyncio.run(main()).get_status("one")


def test_a_thread_that_gets_no_loop_says_so() -> None:
    def broken(coroutine: Coroutine[Any, Any, None]) -> None:
        coroutine.close()
        raise OSError("Too many open files")

    raised: list[BaseException] = []

    def ask() -> None:
        try:
            SyncClient.connect("http://localhost:9", key="k").get_status("one")
        except BaseException as error:
            raised.append(error)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("holdfast.client.threads.asyncio.run", broken)
        asking = threading.Thread(target=ask, daemon=True)  # so that a test that fails ends all the same
        asking.start()
        asking.join(timeout=30)
    assert [str(error) for error in raised] == ["Too many open files"]


def test_a_client_that_was_never_used_is_closed_without_a_thread() -> None:
    before = threading.active_count()
    with SyncClient.connect("http://localhost:9", key="k") as client:
        assert threading.active_count() == before
    with pytest.raises(HostStoppedError):
        client.get_status("one")
    with pytest.raises(ConfigurationError):
        SyncClient.connect("http://example.com", key="k")


def test_without_a_loop_it_says_so_and_can_be_used_again_later() -> None:
    told: queue.Queue[BaseException] = queue.Queue()

    def no_loop() -> asyncio.AbstractEventLoop:
        raise OSError(errno.EMFILE, "Too many open files")

    def ask(client: SyncClient) -> None:
        try:
            client.get_status("nobody")
        except BaseException as error:
            told.put(error)

    with SyncClient.connect("http://127.0.0.1:1", attempts_max=1) as client:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("asyncio.events.new_event_loop", no_loop)
            # In a thread that may be left behind, for it must not be waited for.
            threading.Thread(target=ask, args=(client,), daemon=True).start()
            assert isinstance(told.get(timeout=SOON.total_seconds()), OSError)
        with pytest.raises(HostUnreachableError):
            client.get_status("nobody")


def test_nobody_listens() -> None:
    async def free_url() -> str:
        async with serving("memory://") as served, on_port(served) as url:
            return url

    with SyncClient.connect(asyncio.run(free_url()), key=KEY, attempts_max=1) as client:
        with pytest.raises(HostUnreachableError):
            client.get_status("one")
        with pytest.raises(HostUnreachableError):
            list(client.iterate_instances())


# Processes

_SCRIPT = """
import os, sys
from holdfast import SyncClient

client = SyncClient.connect(sys.argv[1], key=sys.argv[2])
client.start_new("buy", {"item": "tea"}, instance_id="one").wait_for_completion()
child = os.fork()
if child == 0:
    result = client.wait_for_completion("one")
    os._exit(0 if result == {"text": "2 x tea"} else 1)
assert os.waitpid(child, 0)[1] == 0
print(client.wait_for_completion("one")["text"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_client_survives_a_fork_and_a_script_may_forget_to_close_it() -> None:
    """As under a server that forks its workers once the application is loaded."""

    async def main() -> subprocess.CompletedProcess[str]:
        async with serving("memory://") as served, on_port(served) as url:
            command = [sys.executable, "-c", _SCRIPT, url, KEY]
            return await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
            )

    done = asyncio.run(main())
    assert (done.stdout, done.returncode) == ("2 x tea\n", 0), done.stderr


def test_errors_are_raised_in_the_thread_that_asked(hosted: SyncClient) -> None:
    with pytest.raises(InstanceNotFoundError) as error:
        hosted.wait_for_completion("nobody")
    assert error.value.instance_id == "nobody"


def test_a_blocking_activity_may_use_the_client_of_its_host() -> None:
    app = App()

    @app.activity
    def start_another(item: str) -> str:
        return client.start_new("buy", {"item": item}, instance_id="other").wait_for_completion(timeout=SOON)["text"]

    @app.orchestrator
    async def outer(ctx: Any) -> str:
        return await ctx.call_activity(start_another, "tea")

    @app.orchestrator
    async def buy(ctx: Any, order: dict[str, str]) -> dict[str, str]:
        return {"text": order["item"]}

    with SyncClient.hosting(app.host("memory://")) as client:
        assert client.start_new(outer).wait_for_completion(timeout=SOON) == "tea"
