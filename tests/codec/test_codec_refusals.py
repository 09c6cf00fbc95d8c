"""What cannot be JSON, or only with loss, is refused with the path, the type and a way out."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import functools
import io
import math
import pathlib
import re
import socket
import threading
import typing
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import msgspec
import pytest

from holdfast.codec.converter import JsonConverter
from holdfast.errors import PayloadError

CONVERTER = JsonConverter(payload_bytes_max=1_000_000)


@dataclasses.dataclass
class Holder:
    items: list[Any]
    note: str | None = None


class Wrapper(msgspec.Struct):
    inner: Any


class Odd(enum.Enum):
    THING = object()
    NAN = math.nan


class Array:
    def tolist(self) -> list[int]:
        return [1]


class Plain:
    pass


class Float64(float):
    __slots__ = ()


def _generator() -> typing.Iterator[int]:
    yield 1


BAD: list[tuple[Any, str]] = [
    (Holder([0, 1, Plain()]), "$.items[2] is a test_codec_refusals.Plain, which is not JSON-able: make it a dataclass"),
    ({"a": {"b c": [Wrapper(Plain())]}}, "$.a['b c'][0].inner is a test_codec_refusals.Plain"),
    ([threading.Lock()], "$[0] is a _thread.lock, which is not JSON-able: make it"),
    ({"x": {Plain()}}, "$.x[...] is a test_codec_refusals.Plain"),
    (Array(), "$ is a test_codec_refusals.Array, which is not JSON-able: pass value.tolist()."),
    ([_generator], "$[0] is a function, which is not JSON-able: code is not data"),
    ([lambda: 1], "$[0] is a function"),
    ([len], "$[0] is a builtin_function_or_method"),
    ([Plain().__init__], "code is not data"),
    ([functools.partial(len)], "$[0] is a functools.partial, which is not JSON-able: code is not data"),
    ([_generator()], "$[0] is a generator, which is not JSON-able: pass list(...) of it."),
    ([{}.keys()], "pass list(...) of it."),
    ([range(3)], "$[0] is a range"),
    ([map(str, [])], "$[0] is a map"),
    ([math], "$[0] is a module, which is not JSON-able: pass its name as text."),
    ([Plain], "$[0] is a class, which is not JSON-able: pass the name of the class"),
    ([ValueError("x")], "$[0] is a ValueError, which is not JSON-able: pass str(error)"),
    ([1j], "$[0] is a complex, which is not JSON-able: pass its real and imaginary parts."),
    ([pathlib.PurePosixPath("x")], "which is not JSON-able: pass str(path)."),
    ([io.BytesIO()], "$[0] is an _io.BytesIO, which is not JSON-able: pass the path or the content"),
    ([msgspec.UNSET], "$[0] is a msgspec.UnsetType, which is not JSON-able: leave the field out"),
    ([typing.Any], "is not JSON-able"),
    ([Odd.THING], "$[0] is an object, which is not JSON-able"),
    (math.nan, "$ is nan, for which JSON has no form; pass None"),
    ({"a": [1.5, -math.inf]}, "$.a[1] is -inf"),
    (Holder([{"x": math.inf}]), "$.items[0].x is inf"),
    (Wrapper((1.0, {math.nan})), "$.inner[1][...] is nan"),
    ([Odd.NAN], "$[0] is nan"),
    ([Float64("nan")], "$[0] is nan"),
    ({math.nan: 1}, "$ has the dict key nan"),
    ("a\ud800", "$ contains the lone surrogate '\\ud800'"),
    ({"k": ["\udfff"]}, "$.k[0] contains the lone surrogate '\\udfff'"),
    ({"\udfff": 1}, "a dict key in $ contains the lone surrogate"),
    ({(1, 2): 3}, "$ has a dict key that is a tuple: JSON keys are texts. Use str, int, UUID or enum keys"),
    ([{None: 1}], "$[0] has a dict key that is a NoneType"),
    ([{True: 1}], "$[0] has a dict key that is a bool"),
    ([{frozenset({1}): 1}], "$[0] has a dict key that is a frozenset"),
    ({1: "a", "1": "b"}, "$ has two keys that JSON writes as '1'; one value would be lost."),
    (10**5000, "$ is an int of 16610 bits, which is too long"),
    ({10**5000: 1}, "a dict key in $ is an int of 16610 bits"),
    (
        [datetime(1880, 1, 1, tzinfo=ZoneInfo("Europe/Paris"))],
        "$[0] is a datetime with the UTC offset 0:09:21, of which JSON keeps whole minutes only; convert it with",
    ),
    (Holder([datetime(2026, 1, 1, 1, 1, 1, 7, tzinfo=timezone(timedelta(seconds=-61)))]), "$.items[0] is a datetime"),
    ({datetime(1880, 1, 1, tzinfo=ZoneInfo("Europe/Paris")): 1}, "a dict key in $ is a datetime"),
]


@pytest.mark.parametrize(("value", "message"), BAD, ids=[ascii(message)[:50] for _, message in BAD])
def test_the_path_the_type_and_the_way_out_are_named(value: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=re.escape(message)):
        CONVERTER.encode(value)


def test_a_resource_deep_inside_is_found() -> None:
    with socket.socket() as handle, pytest.raises(PayloadError) as caught:
        CONVERTER.encode({"items": [1, 2, {"handle": handle}]})
    assert str(caught.value).startswith("$.items[2].handle is a socket.socket, which is not JSON-able: ")


def test_a_forgotten_await_is_named() -> None:
    async def activity() -> int:
        return 1

    coroutine = activity()
    with pytest.raises(
        PayloadError, match=r"\$\.x is a coroutine, which is not JSON-able: it was not awaited; await it"
    ):
        CONVERTER.encode({"x": coroutine})
    coroutine.close()
    loop = asyncio.new_event_loop()
    future: asyncio.Future[int] = loop.create_future()
    with pytest.raises(PayloadError, match="await it"):
        CONVERTER.encode(future)
    loop.close()


def test_what_contains_itself_is_found() -> None:
    circle: list[Any] = [1]
    circle.append({"me": circle})
    with pytest.raises(PayloadError, match=r"\$\[1\]\.me is \$ again: a value that contains itself has no JSON"):
        CONVERTER.encode(circle)
    holder = Holder([])
    holder.items.append(holder)
    with pytest.raises(PayloadError, match=r"\$\.items\[0\] is \$ again"):
        CONVERTER.encode(holder)


def test_the_same_part_twice_is_no_circle() -> None:
    part = {2: [1.5]}
    assert CONVERTER.encode([part, part]) == '[{"2":[1.5]},{"2":[1.5]}]'


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PayloadError, match="nested too deeply"):
        CONVERTER.encode(deep)
    while deep:  # or else the interpreter takes it apart recursively
        deep = deep[0]


@pytest.mark.parametrize(
    "value",
    [
        "null",
        ["null", None],
        {"nan": None},
        Holder([1.5, "\x7f\xf0"]),
        "\xcb\x7f\xf8 null",
        [b"\xcb\x7f\xf8\x00\x00", None],
        [2**70, None],
        "2026-01-01T00:00:00+01:00",
    ],
)
def test_what_only_looks_like_a_loss_is_written(value: Any) -> None:
    assert CONVERTER.decode(CONVERTER.encode(value), type(value)) is not None


@pytest.mark.parametrize(
    ("text", "annotation", "message"),
    [
        (
            '{"items":1}',
            Holder,
            r"`\$\.items` of the JSON does not fit test_codec_refusals\.Holder: Expected `array`, got",
        ),
        (
            '{"a":[1,"x"]}',
            dict[str, list[int]],
            r"`\$\[\.\.\.\]\[1\]` of the JSON does not fit dict\[str, list\[int\]\]: Exp",
        ),
        ('{"x":1}', dict[int, int], r"a key: Expected `int`, got `str`"),
        ("1.5", int, "The JSON does not fit int: Expected `int`, got `float`"),
        ("null", str, "Expected `str`, got `null`"),
        ("", int, "truncated"),
        ("{]", Any, "malformed"),
        ('"\\ud800"', str, "does not fit str"),
        ("\ud800", str, "does not fit str"),
        ("9" * 5000, int, "Integer value out of range"),
        ("[" * 100_000, Any, "nested too deeply"),
        ("1", Plain, r"Plain is no type that JSON is decoded into; use a dataclass"),
        ("[1]", list[Plain], r"`\$\[0\]` of the JSON does not fit list\[.*Plain\]"),
        ('"x"', pathlib.Path, "pathlib.* is no type that JSON is decoded into"),
        ("1", "int", "No JSON can be decoded into 'int'"),
        ("1", NoReturn, "No JSON can be decoded into NoReturn"),
        ("1", typing.Callable[[int], int], "is no type that JSON is decoded into"),
        ('"green"', Odd, r"'green' is none of the values of .*Odd"),
    ],
)
def test_decoding_errors_are_payload_errors_with_a_path(text: str, annotation: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        CONVERTER.decode(text, annotation)


def test_errors_of_user_code_are_payload_errors_with_their_cause() -> None:
    @dataclasses.dataclass
    class Picky:
        n: int

        def __post_init__(self) -> None:
            if self.n < 0:
                raise ValueError("n is negative")
            if self.n == 0:
                raise ZeroDivisionError("n is zero")

    with pytest.raises(PayloadError, match=r"`\$\[1\]` of the JSON does not fit .*: n is negative") as caught:
        CONVERTER.decode('[{"n":1},{"n":-1}]', list[Picky])
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(PayloadError, match="ZeroDivisionError: n is zero"):
        CONVERTER.decode('{"n":0}', Picky)
    with pytest.raises(PayloadError, match="n is negative"):
        CONVERTER.decode('{"n":-1}', Picky | Holder)


def test_an_annotation_that_cannot_be_resolved_is_named() -> None:
    Lost = dataclasses.make_dataclass("Lost", [("x", "Missing")])
    with pytest.raises(PayloadError, match="Missing"):
        CONVERTER.decode('{"x":1}', Lost)
