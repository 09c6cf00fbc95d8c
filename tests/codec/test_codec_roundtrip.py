"""Values come back equal, of the same type, when they are decoded by their annotation; their text is canonical."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import os
import subprocess
import sys
import threading
import typing
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.codec.converter import JsonConverter
from holdfast.codec.plain import to_plain
from holdfast.errors import PayloadError, PayloadTooLargeError
from holdfast.model.converter import DataConverter

K = TypeVar("K")
CONVERTER = JsonConverter(payload_bytes_max=1_000_000)
FAST = settings(max_examples=40, deadline=None, derandomize=True)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"
    PAIR = (1, 2)
    HALF = 0.5


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float = 0.5


class Row(TypedDict):
    id: int
    note: NotRequired[str | None]


@dataclasses.dataclass(frozen=True)
class Line:
    sku: str
    count: int = 1
    price: Decimal = Decimal("0.00")


@dataclasses.dataclass
class Order:
    id: uuid.UUID
    lines: list[Line]
    placed: datetime
    colour: Colour | None = None
    tags: set[str] = dataclasses.field(default_factory=set)
    by_day: dict[date, int] = dataclasses.field(default_factory=dict)
    total: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    a: int
    b: str | None = None


class Item(msgspec.Struct, rename="camel", omit_defaults=True):
    unit_price: int
    sold_at: time | None = None
    inner: Item | None = None


class Packed(msgspec.Struct, array_like=True, tag=True):
    a: int
    b: frozenset[int] = frozenset()


@dataclasses.dataclass
class Box(Generic[K]):
    item: K
    more: list[K]


class UserId(str):
    __slots__ = ()


Cents = NewType("Cents", int)

TEXT = st.text(max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30)), ZoneInfo("Europe/Berlin")])
MODERN = st.datetimes(
    min_value=datetime(1950, 1, 1),  # noqa: DTZ001 - hypothesis wants them naive
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=ZONES,
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
LINES = st.builds(Line, TEXT, st.integers(), st.decimals(allow_nan=False))

TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Any, PLAIN),
    (object, PLAIN),
    (str, TEXT),
    (int, st.integers(min_value=-(10**400), max_value=10**400)),
    (float, FINITE),
    (bool, st.booleans()),
    (None, st.none()),
    (bytes, st.binary()),
    (bytearray, st.binary().map(bytearray)),
    (Decimal, st.decimals(allow_nan=False)),
    (uuid.UUID, st.uuids()),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (datetime, st.datetimes()),
    (datetime, MODERN),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Mixed, st.sampled_from(Mixed)),
    (Rights, st.sampled_from([Rights.READ, Rights.READ | Rights.WRITE])),
    (Literal["a", 1, None], st.sampled_from(["a", 1, None])),
    (Literal[Colour.RED, "b", True, 1], st.sampled_from([Colour.RED, "b", True, 1])),
    (list[int | None], st.lists(st.none() | st.integers())),
    (tuple[int, str], st.tuples(st.integers(), TEXT)),
    (tuple[date, ...], st.lists(st.dates()).map(tuple)),
    (set[str], st.sets(TEXT)),
    (set[Colour], st.sets(st.sampled_from(Colour))),
    (set[int | str], st.sets(st.integers() | TEXT)),
    (set[frozenset[str]], st.sets(st.frozensets(TEXT, max_size=2), max_size=4)),
    (list[set[tuple[int, str]]], st.lists(st.sets(st.tuples(st.integers(), TEXT), max_size=3), max_size=3)),
    (frozenset[Line], st.frozensets(LINES, max_size=4)),
    (dict[str, Any], st.dictionaries(TEXT, PLAIN, max_size=3)),
    (dict[int, str], st.dictionaries(st.integers(), TEXT)),
    (dict[uuid.UUID, date], st.dictionaries(st.uuids(), st.dates())),
    (dict[Colour, int], st.dictionaries(st.sampled_from(Colour), st.integers())),
    (dict[Level, int], st.dictionaries(st.sampled_from(Level), st.integers())),
    (dict[date, list[bytes]], st.dictionaries(st.dates(), st.lists(st.binary(), max_size=2), max_size=3)),
    (Mapping[str, int], st.dictionaries(TEXT, st.integers())),
    (Sequence[Line], st.lists(LINES, max_size=3)),
    (Iterable[Line], st.lists(LINES, max_size=3)),
    (collections.deque[Line], st.lists(LINES, max_size=3).map(collections.deque)),
    (Point, st.builds(Point, st.integers(), FINITE)),
    (Row, st.fixed_dictionaries({"id": st.integers()}, optional={"note": st.none() | TEXT})),
    (Line, LINES),
    (Slotted, st.builds(Slotted, st.integers(), st.none() | TEXT)),
    (
        Order,
        st.builds(
            Order,
            st.uuids(),
            st.lists(LINES, max_size=3),
            MODERN,
            st.none() | st.sampled_from(Colour),
            st.sets(TEXT, max_size=3),
            st.dictionaries(st.dates(), st.integers(), max_size=3),
        ),
    ),
    (Item, st.builds(Item, st.integers(), st.none() | st.times(), st.none() | st.builds(Item, st.integers()))),
    (Packed, st.builds(Packed, st.integers(), st.frozensets(st.integers()))),
    (Box[Line], st.builds(Box[Line], LINES, st.lists(LINES, max_size=2))),
    (UserId, TEXT.map(UserId)),
    (dict[UserId, int], st.dictionaries(TEXT.map(UserId), st.integers())),
    (Cents, st.integers()),
    (Annotated[int, msgspec.Meta(ge=0)], st.integers(min_value=0)),
]


@pytest.mark.parametrize(("annotation", "values"), TYPES, ids=lambda part: str(part)[:40])
def test_values_come_back_by_their_annotation(annotation: Any, values: st.SearchStrategy[Any]) -> None:
    @FAST
    @given(values)
    def check(value: Any) -> None:
        text = CONVERTER.encode(value)
        json.loads(text)
        again = CONVERTER.decode(text, annotation)
        assert instant(again) == instant(value)
        assert type(again) is type(value)
        assert CONVERTER.encode(again) == text

    check()


def instant(value: Any) -> Any:
    """Return a datetime in UTC: in the hour that a zone has twice, it is equal to none of another zone (PEP 495)."""
    is_aware = isinstance(value, datetime) and value.tzinfo is not None
    return value.astimezone(UTC) if is_aware else value


@pytest.mark.parametrize(("annotation", "values"), TYPES, ids=lambda part: str(part)[:40])
def test_the_slow_walk_writes_what_comes_back_as_well(annotation: Any, values: st.SearchStrategy[Any]) -> None:
    @settings(max_examples=15, deadline=None, derandomize=True)
    @given(values)
    def check(value: Any) -> None:
        encoder = msgspec.json.Encoder(order="deterministic")

        def convert(part: Any) -> object:
            return list(part) if isinstance(part, collections.deque) else str(part)

        plain = to_plain(value, encoder.encode, convert)
        assert CONVERTER.decode(encoder.encode(plain).decode(), annotation) == value

    check()


@pytest.mark.parametrize("value", [None, 0, 0.0, "", [], {}, False])
def test_falsy_values_stay_distinct(value: Any) -> None:
    for annotation in (
        Any,
        object,
        type(value),
        type(value) | None,
        int | float | str | list[Any] | dict[str, Any] | None,
    ):
        if annotation == int | float | str | list[Any] | dict[str, Any] | None and isinstance(value, bool):
            continue
        again = CONVERTER.decode(CONVERTER.encode(value), annotation)
        assert again == value
        assert type(again) is type(value)


def test_falsy_values_inside_of_a_value_stay_distinct() -> None:
    value = {"a": None, "b": 0, "c": "", "d": [], "e": {}, "f": False, "g": [None, 0, "", [], {}, False]}
    assert CONVERTER.encode(value) == '{"a":null,"b":0,"c":"","d":[],"e":{},"f":false,"g":[null,0,"",[],{},false]}'
    assert repr(CONVERTER.decode(CONVERTER.encode(value), Any)) == repr(value)


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 10, 25, 2, 30, 0, 1, tzinfo=ZoneInfo("Europe/Berlin"), fold=0),
        datetime(2026, 10, 25, 2, 30, 0, 1, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=-12))),
    ],
)
def test_an_instant_is_kept_to_the_microsecond(moment: datetime) -> None:
    again = CONVERTER.decode(CONVERTER.encode(moment), datetime)
    assert again.replace(tzinfo=None) == moment.replace(tzinfo=None, fold=0)
    assert again.utcoffset() == moment.utcoffset()


def test_naive_stays_naive() -> None:
    assert CONVERTER.decode(CONVERTER.encode(datetime(2026, 1, 1)), datetime).tzinfo is None  # noqa: DTZ001


def test_a_field_that_is_set_after_construction_comes_back() -> None:
    order = Order(uuid.UUID(int=1), [], datetime(2026, 1, 1, tzinfo=UTC))
    order.total = 99
    assert CONVERTER.decode(CONVERTER.encode(order), Order).total == 99


def test_unknown_fields_are_ignored_and_missing_ones_take_their_defaults() -> None:
    assert CONVERTER.decode('{"sku":"a","added_later":[1]}', Line) == Line("a")


def test_a_subclass_is_read_as_it_is_annotated() -> None:
    @dataclasses.dataclass(frozen=True)
    class Gift(Line):
        ribbon: str = "red"

    text = CONVERTER.encode(Gift("a"))
    assert CONVERTER.decode(text, Gift) == Gift("a")
    assert type(CONVERTER.decode(text, Line)) is Line


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64, 10**100, -(10**4000)])
def test_integers_of_any_size_are_exact(number: int) -> None:
    text = CONVERTER.encode({"n": number, "m": None})
    assert CONVERTER.decode(text, dict[str, int | None])["n"] == number
    assert CONVERTER.decode(text, Any)["n"] == number


def test_the_text_depends_on_the_value_alone() -> None:
    assert CONVERTER.encode({"b": 1, "a": 2}) == CONVERTER.encode({"a": 2, "b": 1}) == '{"a":2,"b":1}'
    program = (
        "from holdfast.codec.converter import JsonConverter\n"
        "from decimal import Decimal\n"
        "names = {'ä', 'b', 'c', 'd', 'e', 'f'}\n"
        "edges = {frozenset({a, b}) for a in names for b in names}\n"
        "value = [names, edges, {'deep': [(1, edges)]}]\n"
        "value += [{1, 'x', None, (2, 'y')}, {n: names for n in names}, {Decimal(1), 'one'}, {b'1', b'2'}]\n"
        "print(ascii(JsonConverter(payload_bytes_max=9999).encode(value)))\n"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1


def test_pydantic_is_not_imported() -> None:
    program = "import sys; import holdfast.codec.converter as c; c.JsonConverter(payload_bytes_max=9).encode([]);"
    subprocess.run([sys.executable, "-c", program + "assert 'pydantic' not in sys.modules"], check=True, timeout=60)


def test_it_is_a_data_converter() -> None:
    converter: DataConverter = CONVERTER
    assert converter.decode(converter.encode("x"), str) == "x"


def test_the_size_limit_counts_bytes() -> None:
    converter = JsonConverter(payload_bytes_max=6)
    assert converter.encode("ää") == '"ää"'
    with pytest.raises(PayloadTooLargeError, match=r"A str takes 8 bytes as JSON; the limit is 6\. Store it elsewhere"):
        converter.encode("äää")
    with pytest.raises(PayloadTooLargeError):
        converter.encode({1: "a lot"})
    assert issubclass(PayloadTooLargeError, PayloadError)


def test_the_cache_of_decoders_is_bounded_and_keeps_types_apart() -> None:
    converter = JsonConverter(payload_bytes_max=100)
    for _ in range(3000):
        assert converter.decode("1", int | None) == 1
        assert converter.decode("[1]", set[int]) == {1}
    assert len(converter._decoders) <= 1024


def test_an_unhashable_annotation_is_fine() -> None:
    annotation = Annotated[list[int], {"not": "hashable"}]
    with pytest.raises(TypeError):
        hash(annotation)
    assert CONVERTER.decode("[1]", annotation) == [1]


def test_one_converter_serves_many_threads() -> None:
    converter = JsonConverter(payload_bytes_max=10_000)
    wrong: list[object] = []

    def work(seed: int) -> None:
        for n in range(300):
            value = Box(Line(str(n), seed), [Line("x", n)])
            again = converter.decode(converter.encode(value), Box[Line])
            if again != value:
                wrong.append(again)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_annotations_that_are_text_are_resolved() -> None:
    assert typing.get_type_hints(Order)["lines"] == list[Line]
    assert CONVERTER.decode('{"item":{"sku":"a"},"more":[]}', Box[Line]).item == Line("a")
