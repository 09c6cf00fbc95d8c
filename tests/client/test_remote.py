"""A client far from its host: lost answers, long waits, and what it says when nobody is there."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from client_kit import KEY, SOON, on_port, serving, sqlite
from starlette.applications import Starlette
from starlette.routing import Mount

from holdfast import (
    Client,
    CommitFailedError,
    ConfigurationError,
    EntityId,
    EntitySignal,
    HoldfastError,
    HostStoppedError,
    HostUnreachableError,
    InstanceNotRunningError,
    InstanceQuery,
    InvalidInputError,
    Limits,
    OverloadedError,
    PayloadError,
    PayloadTooLargeError,
    StorageError,
    WaitTimeoutError,
    connect,
)
from holdfast.client.exchange import Answer, AnswerLostError, NotSentError
from holdfast.client.protocol import HUB_PATH, METHODS, WAIT_S_MAX, Refusal
from holdfast.client.remote import RemoteTaskHub
from holdfast.client.wire_errors import to_wire
from holdfast.codec.converter import JsonConverter
from holdfast.errors import CorruptRecordError
from holdfast.model.history import EntityOperationCompleted, EventRaised, TimerFired, UpdateCompleted
from holdfast.model.status import OrchestrationState, OrchestrationStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DONE = OrchestrationState(
    instance_id="one",
    execution_id="e",
    name="x",
    runtime_status=OrchestrationStatus.COMPLETED,
    created_at=NOW,
    last_updated_at=NOW,
    output="7",
)
NOTHING = Answer(200, b"null")
NOT_YET = Answer(202, b"")
LOST = AnswerLostError("gone")
UNSENT = NotSentError("nobody there")
ENDED = InstanceNotRunningError("one", "Completed", "raise an event for")


def told(result: Any) -> Answer:
    return Answer(200, msgspec.json.encode(result))


def refused(error: HoldfastError, status: int = 409) -> Answer:
    return Answer(status, msgspec.json.encode(Refusal(to_wire(error))))


class Script:
    """Stands for the network: says in turn what it was given, and keeps what it was asked."""

    def __init__(self, *said: Answer | Exception | None) -> None:
        self.said = list(said)
        self.asked: list[tuple[str, Any, float | None]] = []
        self.pauses_s: list[float] = []

    async def post(self, path: str, body: bytes, wait_s: float | None) -> Answer | None:
        self.asked.append((path.removeprefix(f"{HUB_PATH}/"), msgspec.json.decode(body), wait_s))
        said = self.said.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    async def pause(self, seconds: float) -> None:
        self.pauses_s.append(seconds)

    def client(self, attempts_max: int = 3) -> Client:
        keys = iter(f"key-{number}" for number in range(100))
        hub = RemoteTaskHub(self, "http://far", lambda: next(keys), attempts_max=attempts_max, sleep=self.pause)
        return Client(hub, JsonConverter(payload_bytes_max=1000))


def ask(script: Script, request: Callable[[Client], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await request(script.client())

    result = asyncio.run(main())
    assert not script.said
    return result


COUNTER: EntityId[Any] = EntityId("counter", "a")

CALLED = EntityOperationCompleted(timestamp=NOW, request_id="r", output="7")

SAFE: list[tuple[Callable[[Client], Awaitable[Any]], Answer]] = [
    (lambda client: client.start_new("x"), NOTHING),
    (lambda client: client.start_new("x", request_key="k"), NOTHING),
    (lambda client: client.raise_event("one", "e", key="k"), NOTHING),
    (lambda client: client.update("one", "u"), told(UpdateCompleted(timestamp=NOW, update_id="u", result="7"))),
    (lambda client: client.signal_entity(COUNTER, "add", 1, key="k"), NOTHING),
    (lambda client: client.call_entity(COUNTER, "add", 1), told(CALLED)),
    (lambda client: client.query("one", "q"), told("7")),
    (lambda client: client.get_status("one"), NOTHING),
    (lambda client: client.get_history("one"), told([])),
    (lambda client: client.get_entity(COUNTER), NOTHING),
    (lambda client: client.list_entities(), told([])),
    (lambda client: client.list_instances(), told([])),
    (lambda client: client.count_instances(), told({})),
    (lambda client: client.wait_for_completion("one"), told(DONE)),
]
UNSAFE: list[Callable[[Client], Awaitable[Any]]] = [
    lambda client: client.raise_event("one", "e"),
    lambda client: client.cancel("one"),
    lambda client: client.terminate("one"),
    lambda client: client.suspend("one"),
    lambda client: client.resume("one"),
    lambda client: client.rewind("one"),
    lambda client: client.fork("one"),
    lambda client: client.signal_entity(COUNTER, "add", 1),
    lambda client: client.signal_many([EntitySignal(COUNTER, "add", 1, key="k"), EntitySignal(COUNTER, "add", 1)]),
    lambda client: client.break_lock(COUNTER),
    lambda client: client.clean_entities(),
    lambda client: client.purge("one"),
    lambda client: client.purge_instances(InstanceQuery()),
]


@pytest.mark.parametrize("number", range(len(SAFE)))
def test_what_is_safe_is_asked_again_word_for_word(number: int) -> None:
    request, answer = SAFE[number]
    script = Script(LOST, UNSENT, answer)
    ask(script, request)
    methods, bodies = [asked[0] for asked in script.asked], [asked[1] for asked in script.asked]
    assert len(set(methods)) == 1
    assert bodies[0] == bodies[1] == bodies[2]
    assert script.pauses_s == [0.1, pytest.approx(0.3)]


@pytest.mark.parametrize("number", range(len(UNSAFE)))
def test_what_is_not_safe_is_asked_once_and_may_have_been_done(number: int) -> None:
    script = Script(LOST)
    with pytest.raises(CommitFailedError, match="may have been done") as error:
        ask(script, UNSAFE[number])
    assert error.value.outcome_unknown
    assert len(script.asked) == 1


@pytest.mark.parametrize("number", range(len(UNSAFE)))
def test_what_was_not_sent_is_sent_again(number: int) -> None:
    script = Script(UNSENT, UNSENT, UNSENT)
    with pytest.raises(HostUnreachableError, match=r"http://far cannot be reached: nobody there\. Nothing was stored"):
        ask(script, UNSAFE[number])
    assert len(script.asked) == 3


def test_every_method_was_tried_with_lost_answers() -> None:
    """Had a method been forgotten above, nobody would know what becomes of it."""
    tried: set[str] = {"export_history"}  # as get_history
    for request in [safe[0] for safe in SAFE] + UNSAFE:
        script = Script(UNSENT, UNSENT, UNSENT)
        with pytest.raises(HostUnreachableError):
            ask(script, request)
        tried.add(script.asked[0][0])
    assert tried == set(METHODS)


def test_a_restart_under_the_same_id_is_not_repeated() -> None:
    script = Script(told(DONE), LOST)
    with pytest.raises(CommitFailedError):
        ask(script, lambda client: client.restart("one", with_new_id=False))
    assert script.asked[1][1]["request"].get("request_key") is None


def test_a_read_without_an_answer_says_that_the_host_is_unreachable() -> None:
    with pytest.raises(HostUnreachableError, match="HTTP status 502"):
        ask(Script(*[Answer(502, b"<html>")] * 3), lambda client: client.get_status("one"))


def test_a_keyed_write_without_an_answer_may_have_been_done() -> None:
    with pytest.raises(CommitFailedError, match="start_orchestration: gone") as error:
        ask(Script(LOST, LOST, LOST), lambda client: client.start_new("x"))
    assert error.value.outcome_unknown


@pytest.mark.parametrize(
    "error", [HostStoppedError("It is stopping."), StorageError("It is closed."), CommitFailedError("It is full.")]
)
def test_what_passes_is_waited_for_where_that_is_safe(error: HoldfastError) -> None:
    said = refused(error, 503)
    assert ask(Script(said, UNSENT, told(DONE)), lambda client: client.wait_for_completion("one")) == 7
    ask(Script(said, NOTHING), lambda client: client.start_new("x"))
    with pytest.raises(type(error), match=str(error)):
        ask(Script(said), lambda client: client.terminate("one"))
    with pytest.raises(type(error), match=str(error)):
        ask(Script(said, said, said), lambda client: client.get_status("one"))


@pytest.mark.parametrize("number", range(len(UNSAFE)))
def test_an_overload_stored_nothing_and_is_asked_again_whatever_it_was(number: int) -> None:
    for status in (429, 503):
        said = refused(OverloadedError("Too much waits."), status)
        script = Script(said, said, said)
        with pytest.raises(OverloadedError, match="Too much waits"):
            ask(script, UNSAFE[number])
        assert script.pauses_s == [0.1, pytest.approx(0.3)]


def test_an_overload_passes() -> None:
    said = refused(OverloadedError("The host is recovering."), 503)
    ask(Script(said, said, NOTHING), lambda client: client.terminate("one"))
    assert ask(Script(said, told(DONE)), lambda client: client.wait_for_completion("one")) == 7
    with pytest.raises(OverloadedError):
        ask(Script(LOST, said, said), lambda client: client.get_status("one"))
    with pytest.raises(CommitFailedError) as error:  # the first one may have been stored
        ask(Script(LOST, said, said), lambda client: client.start_new("x"))
    assert error.value.outcome_unknown


def test_what_does_not_pass_is_told_at_once() -> None:
    with pytest.raises(CorruptRecordError):
        ask(Script(refused(CorruptRecordError("It cannot be read."), 500)), lambda client: client.get_status("one"))


def test_pauses_grow_up_to_a_limit() -> None:
    script = Script(*[UNSENT] * 9)

    async def main() -> None:
        await script.client(attempts_max=9).terminate("one")

    with pytest.raises(HostUnreachableError):
        asyncio.run(main())
    assert script.pauses_s == pytest.approx([0.1, 0.3, 0.9, 2.7, 5, 5, 5, 5])


# Refusals of a repetition


def event(key: str) -> EventRaised:
    return EventRaised(timestamp=NOW, name="e", key=key)


def test_an_event_that_came_in_before_the_end_was_not_refused() -> None:
    script = Script(LOST, refused(ENDED, 410), told([event("k")]))
    ask(script, lambda client: client.raise_event("one", "e", key="k"))


@pytest.mark.parametrize("history", [told([event("other")]), refused(HoldfastError("x")), LOST])
def test_an_event_of_which_nothing_is_written_may_have_come_in(history: Answer | Exception) -> None:
    said = [history] * (3 if isinstance(history, Exception) else 1)
    with pytest.raises(CommitFailedError) as error:
        ask(Script(LOST, refused(ENDED, 410), *said), lambda client: client.raise_event("one", "e", key="k"))
    assert error.value.outcome_unknown


def test_an_update_that_was_answered_between_two_polls_is_found_in_the_history() -> None:
    answer = UpdateCompleted(timestamp=NOW, update_id="u", result="7")
    script = Script(NOT_YET, refused(ENDED, 410), told([answer]))
    assert ask(script, lambda client: client.update("one", "add", update_id="u")) == 7
    with pytest.raises(InstanceNotRunningError):
        ask(Script(NOT_YET, refused(ENDED, 410), told([])), lambda client: client.update("one", "add", update_id="u"))


def test_a_refusal_at_the_first_try_is_one() -> None:
    with pytest.raises(InstanceNotRunningError):
        ask(Script(UNSENT, refused(ENDED, 410)), lambda client: client.raise_event("one", "e", key="k"))


# Waits


def test_a_wait_is_asked_again_until_there_is_an_answer() -> None:
    script = Script(NOT_YET, None, LOST, NOT_YET, told(DONE))
    assert ask(script, lambda client: client.wait_for_completion("one")) == 7
    assert {(method, wait_s) for method, _, wait_s in script.asked} == {("wait_until_stopped", WAIT_S_MAX)}


def test_a_wait_that_runs_out_says_what_it_says_near_the_host() -> None:
    for request in (
        lambda client: client.wait_for_completion("one", timeout=timedelta(microseconds=1)),
        lambda client: client.update("one", "add", timeout=timedelta(microseconds=1)),
        lambda client: client.call_entity(COUNTER, "add", timeout=timedelta(microseconds=1)),
    ):
        with pytest.raises(WaitTimeoutError, match=r"within 0:00:00\.000001"):
            ask(Script(NOT_YET), request)


def test_calls_and_updates_keep_their_key_from_poll_to_poll() -> None:
    script = Script(NOT_YET, NOT_YET, told(CALLED))
    assert ask(script, lambda client: client.call_entity(COUNTER, "add")) == 7
    assert {body["request"]["key"] for _, body, _ in script.asked} == {"key-0"}


# What is not a host


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (Answer(401, b""), ConfigurationError, "refuses the key"),
        (Answer(401, b""), ConfigurationError, "key= of connect, or in HOLDFAST_KEY"),
        (Answer(403, b'{"Message": "This needs a key for admin"}'), ConfigurationError, "This needs a key for admin"),
        (Answer(403, b"<html>"), ConfigurationError, "does not say why.*HOLDFAST_KEY"),
        (Answer(404, b"{}"), ConfigurationError, "404"),
        (Answer(302, b""), ConfigurationError, "302"),
        (Answer(413, b""), PayloadTooLargeError, "larger"),
        (Answer(200, b"<html>"), ConfigurationError, "cannot be read"),
        (Answer(200, b"[" * 100_000), ConfigurationError, "cannot be read"),
        (NOT_YET, ConfigurationError, "202"),
    ],
)
def test_strange_answers(answer: Answer, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        ask(Script(answer), lambda client: client.get_status("one"))


def test_what_cannot_travel_is_refused_before_it_is_sent() -> None:
    with pytest.raises(PayloadError, match="surrogate"):
        ask(Script(), lambda client: client.get_status("\ud800"))

    async def send(client: Client) -> None:
        hub = RemoteTaskHub(Script(), "http://far", str, attempts_max=1)
        await hub.send("one", TimerFired(timestamp=NOW, timer_id=0, fire_at=NOW))

    with pytest.raises(InvalidInputError, match="TimerFired"):
        ask(Script(), send)


# Connecting


@pytest.mark.parametrize(
    ("url", "options", "complaint"),
    [
        ("ftp://host", {}, "http"),
        ("localhost:7071", {}, "http"),
        ("http://", {}, "http"),
        ("http://host:port", {}, "cannot be read"),
        (7, {}, "cannot be read"),
        ("http://me:secret@host", {}, "a user"),
        ("http://host?code=secret", {}, "a query"),
        ("https://host#secret", {}, "a fragment"),
        ("http://example.com", {"key": "k"}, "unencrypted"),
        ("http://localhost.example.com", {"key": "k"}, "unencrypted"),
        ("https://host", {"key": ""}, "key"),
        ("https://host", {"key": "a\r\nb"}, "key"),
        ("https://host", {"timeout_s": 0}, "timeout_s"),
        ("https://host", {"attempts_max": 0}, "attempts_max"),
        ("https://host", {"connections_max": True}, "connections_max"),
        ("https://host", {"answer_bytes_max": "1"}, "answer_bytes_max"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    url: Any, options: dict[str, Any], complaint: str
) -> None:
    async def main() -> None:
        async with connect(url, **options):
            raise AssertionError

    with pytest.raises(ConfigurationError, match=complaint) as error:
        asyncio.run(main())
    assert "secret" not in str(error.value)


def test_an_unknown_option_is_refused_with_the_nearest_one() -> None:
    async def main() -> None:
        async with connect("http://localhost", timeout=3):  # type: ignore[call-arg]  # that is the point
            raise AssertionError

    with pytest.raises(TypeError, match="Did you mean 'timeout_s'"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://localhost:7071", {"key": "k"}),
        ("http://127.0.0.1", {"key": "k"}),
        ("http://[::1]:7071/prefix/", {"key": "k"}),
        ("https://example.com", {"key": "k"}),
        ("http://example.com", {}),
        ("http://example.com", {"key": "k", "allow_insecure": True}),
    ],
)
def test_what_is_safe_is_let_through(url: str, options: dict[str, Any]) -> None:
    async def main() -> None:
        async with connect(url, **options):
            pass

    asyncio.run(main())


# Real sockets


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.MockTransport:
    return httpx.MockTransport(answer)


def test_the_key_is_in_a_header_and_never_in_the_url() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=b"null")

    async def main() -> None:
        async with connect("https://host/prefix/", key="the key", transport=answering(answer)) as client:
            assert await client.get_status("one") is None

    asyncio.run(main())
    [request] = seen
    assert request.headers["x-functions-key"] == "the key"
    assert str(request.url) == f"https://host/prefix{HUB_PATH}/get_state"


def test_a_host_that_is_mounted_is_found_below_its_prefix() -> None:
    async def main() -> None:
        async with serving("memory://") as served:
            site = httpx.ASGITransport(Starlette(routes=[Mount("/durable", served.host.http_app(KEY))]))
            async with connect("http://localhost/durable/", key=KEY, transport=site) as client:
                run = await client.start_new("buy", {"item": "tea"})
                assert await run.wait_for_completion(timeout=SOON) == {"text": "2 x tea"}
            async with connect("http://localhost", key=KEY, transport=site) as client:
                with pytest.raises(ConfigurationError, match="mounted"):
                    await client.get_status("one")

    asyncio.run(main())


def test_a_redirect_is_not_followed() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "host"
        return httpx.Response(307, headers={"location": "https://elsewhere/"})

    async def main() -> None:
        async with connect("https://host", key="k", transport=answering(answer)) as client:
            with pytest.raises(ConfigurationError, match="307"):
                await client.get_status("one")

    asyncio.run(main())


def test_an_answer_is_read_up_to_its_limit() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b" " * 1000

    async def main() -> None:
        transport = answering(lambda _: httpx.Response(200, content=endless()))
        async with connect("https://host", answer_bytes_max=10_000, transport=transport) as client:
            with pytest.raises(PayloadTooLargeError, match="10,000 bytes"):
                await client.get_history("one")

    asyncio.run(main())
    assert read <= 12


def test_nobody_listens() -> None:
    async def main() -> None:
        async with serving("memory://") as served, on_port(served) as url:
            pass
        async with connect(url, key=KEY, attempts_max=2) as client:
            with pytest.raises(HostUnreachableError, match=url) as error:
                await client.terminate("one")
            assert KEY not in str(error.value)

    asyncio.run(main())


def test_a_wrong_key_is_refused() -> None:
    async def main() -> None:
        async with serving("memory://") as served, on_port(served) as url:
            for key in ("wrong", None):
                async with connect(url, key=key) as client:
                    with pytest.raises(ConfigurationError, match="refuses the key"):
                        await client.get_status("one")

    asyncio.run(main())


@contextlib.asynccontextmanager
async def mute_server() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Takes requests, and closes the connection instead of an answer."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", heard


def test_a_connection_that_breaks_leaves_the_outcome_unknown() -> None:
    async def main() -> None:
        async with mute_server() as (url, heard), connect(url, attempts_max=2) as client:
            with pytest.raises(CommitFailedError) as error:
                await client.terminate("one")
            assert error.value.outcome_unknown
            assert len(heard) == 1
            with pytest.raises(HostUnreachableError):
                await client.get_status("one")
            assert len(heard) == 3

    asyncio.run(main())


class Lossy(httpx.AsyncBaseTransport):
    """Loses requests and answers as a seed says."""

    def __init__(self, inner: httpx.AsyncBaseTransport, chance: random.Random) -> None:
        self._inner = inner
        self._chance = chance
        self.lost = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        fate = self._chance.choice(["sent", "sent", "unsent", "lost"])
        if fate == "unsent":
            raise httpx.ConnectError("unsent")
        response = await self._inner.handle_async_request(request)
        if fate == "lost":
            self.lost += 1
            raise httpx.ReadError("lost")
        return response


@pytest.mark.parametrize("seed", range(3))
def test_what_is_repeated_is_done_once(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.client.remote._PAUSE_S_MAX", 0.001)
    monkeypatch.setattr("holdfast.client.remote._PAUSE_S", 0.001)

    async def main() -> None:
        async with serving("memory://") as served:
            lossy = Lossy(httpx.ASGITransport(served.host.http_app()), random.Random(seed))
            async with connect("http://localhost", transport=lossy, attempts_max=40) as client:
                cart = await client.start_new("cart", instance_id="cart")
                for number in range(1, 11):
                    assert await client.call_entity(COUNTER, "add", 1) == 2 * number - 1
                    await client.signal_entity(COUNTER, "add", 1, key=f"signal-{number}")
                    assert await cart.update("add", f"item {number}") == number
                    run = await client.start_new("buy", {"item": "tea"})
                    assert await run.wait_for_completion(timeout=SOON) == {"text": "2 x tea"}
                await cart.raise_event("checkout", key="once")
                assert len(await cart.wait_for_completion(timeout=SOON)) == 10
                assert await client.call_entity(COUNTER, "get") == 20
                assert sum((await client.count_instances()).values()) == 11
        assert lossy.lost > 10

    asyncio.run(main())


def test_a_wait_outlives_its_host(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(sqlite(tmp_path)) as served, on_port(served) as url:
            await served.host.client.start_new("approve", instance_id="one")
            connection = connect(url, key=KEY, attempts_max=30)
            client = await connection.__aenter__()
            waiting = asyncio.create_task(client.wait_for_completion("one", timeout=SOON))
            await asyncio.sleep(0)
            await served.host.stop()
        async with serving(sqlite(tmp_path)) as served, on_port(served, int(url.rpartition(":")[2])):
            await served.host.client.raise_event("one", "Approval", {"item": "tea"})
            assert await waiting == {"item": "tea"}
            await connection.__aexit__(None, None, None)

    asyncio.run(main())


def test_many_wait_at_once_over_few_connections() -> None:
    async def main() -> None:
        async with (
            serving("memory://") as served,
            on_port(served) as url,
            connect(url, key=KEY, connections_max=2) as client,
        ):
            runs = [await client.start_new("approve", instance_id=f"a{number}") for number in range(2)]
            waits = [asyncio.create_task(run.wait_for_completion(timeout=SOON)) for run in runs]
            await asyncio.sleep(0)
            for run in runs:  # whoever waits does not keep others from being heard
                await run.raise_event("Approval", {"item": "tea"})
            assert await asyncio.gather(*waits) == [{"item": "tea"}] * 2

    asyncio.run(main())


def test_signals_of_the_largest_size_arrive_together() -> None:
    async def main() -> None:
        limits = Limits(payload_bytes_max=200_000)
        async with (
            serving("memory://", limits=limits) as served,
            on_port(served) as url,
            connect(url, key=KEY, limits=limits) as client,
        ):
            # Each quote is escaped twice on its way.
            await client.raise_event((await client.start_new("approve")).instance_id, "x", '"' * 99_990)
            with pytest.raises(PayloadTooLargeError, match=r"larger|over"):
                await client.signal_many([EntitySignal(COUNTER, "add", "x" * 150_000) for _ in range(20)])

    asyncio.run(main())
