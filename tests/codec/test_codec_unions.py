"""Unions, also those that msgspec refuses: the member whose value would have been written as this JSON, then order."""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, NamedTuple, NotRequired, Optional, TypedDict, TypeVar, Union

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from holdfast.codec.converter import JsonConverter
from holdfast.errors import PayloadError

K = TypeVar("K")
CONVERTER = JsonConverter(payload_bytes_max=1_000_000)


@dataclasses.dataclass(frozen=True)
class Cat:
    name: str


@dataclasses.dataclass(frozen=True)
class Dog:
    name: str
    loud: bool = False


class Card(msgspec.Struct, frozen=True):
    number: str


class Cash(msgspec.Struct, frozen=True, tag=True):
    amount: Decimal


class Circle(BaseModel):
    model_config = ConfigDict(frozen=True)
    radius: int


class Named(BaseModel):
    model_config = ConfigDict(frozen=True)
    radius: str


class Pair(NamedTuple):
    pet: Cat | Dog
    count: int = 1


class Row(TypedDict):
    pet: Cat | Dog
    note: NotRequired[str]


@dataclasses.dataclass
class Household:
    pets: list[Cat | Dog]
    means: dict[str, Card | Cash | Circle]
    next: Household | Cat | None = None
    seen: datetime | date | None = None
    checked: bool = dataclasses.field(init=False, default=False)


class Parcel(msgspec.Struct, Generic[K], rename="camel", tag="parcel", kw_only=True):
    the_content: K
    extra: list[K] = []
    code: int = 7


class Compact(msgspec.Struct, array_like=True, tag="c"):
    pet: Cat | Dog
    weight: float = 1.5


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    pet: Cat | Dog


@dataclasses.dataclass
class Crate(Generic[K]):
    content: K


@dataclasses.dataclass
class PetCrate(Crate[Cat | Dog]):
    label: str = ""


class Tree(msgspec.Struct):
    leaf: Cat | Dog
    children: list[Tree] = []


ROUND_TRIPS: list[tuple[Any, Any]] = [
    (Cat("a"), Cat | Dog),
    (Cat("a"), Dog | Cat),
    (Dog("a", True), Cat | Dog),
    (Dog("a"), Cat | Dog),
    (Dog("a"), Dog | Cat),
    (Cat("a"), Union[Dog, Cat]),  # noqa: UP007 - the older spelling must work too
    (None, Optional[Dog | Cat]),  # noqa: UP045
    (Dog("a"), Annotated[Cat | Dog, "meta"]),
    (Card("1"), Card | dict[str, Any]),
    ({"other": 1}, Card | dict[str, Any]),
    ({"number": 1}, Card | dict[str, Any]),
    (Cash(Decimal("1.50")), Card | Cash),
    (Card("1"), Cash | Card),
    (Circle(radius=1), Circle | Named),
    (Named(radius="1"), Circle | Named),
    (Circle(radius=1), Circle | str),
    ("x", Circle | str),
    (1, Circle | int | None),
    (Circle(radius=1), Cat | Circle | Card),
    (datetime(2026, 1, 1, tzinfo=UTC), date | datetime),
    (date(2026, 1, 1), datetime | date),
    ("not a time", datetime | str),
    (uuid.UUID(int=1), uuid.UUID | str),
    ("ABCDEF00-0000-0000-0000-000000000000", uuid.UUID | str),
    (1.5, Decimal | float),
    (Decimal("1.5"), float | Decimal),
    (1, float | int | datetime | str),
    ({1, 2}, set[int] | list[int]),
    ([2, 1], set[int] | list[int]),
    ([1, 1], set[int] | list[int]),
    ([Cat("a"), Dog("b")], list[Cat | Dog]),
    ((Cat("a"), 1), tuple[Cat | Dog, int]),
    ((Cat("a"), Dog("b")), tuple[Cat | Dog, ...]),
    ({Cat("a"), Dog("b")}, set[Cat | Dog]),
    (frozenset({Cat("a"), Dog("b")}), frozenset[Cat | Dog]),
    ({"a": Cat("a")}, dict[str, Cat | Dog]),
    ({1: Cat("a")}, dict[int, Cat | Dog]),
    ({1: 1, uuid.UUID(int=3): 2}, dict[int | uuid.UUID, int]),
    (Pair(Dog("a", True)), Pair),
    ({"pet": Cat("a")}, Row),
    ({"pet": Cat("a"), "note": "x"}, Row),
    (Parcel(the_content=Cat("a"), extra=[Dog("b")]), Parcel[Cat | Dog]),
    (Compact(Dog("b", True)), Compact),
    (Closed(Cat("a")), Closed),
    (Crate(Cat("a")), Crate[Cat | Dog]),
    (PetCrate(Dog("a"), "x"), PetCrate),
    (Tree(Cat("a"), [Tree(Dog("b"), [])]), Tree),
    (
        Household(
            [Cat("a"), Dog("b", True)],
            {"a": Card("1"), "b": Cash(Decimal(1)), "c": Circle(radius=3)},
            Household([], {}, Cat("c"), date(2026, 1, 1)),
            datetime(2026, 1, 1, tzinfo=UTC),
        ),
        Household,
    ),
]


@pytest.mark.parametrize(
    ("value", "annotation"),
    ROUND_TRIPS,
    # The order of a set differs from process to process, and so would the names of the tests.
    ids=lambda part: type(part).__name__ if isinstance(part, set | frozenset) else str(part)[:50],
)
def test_members_are_told_apart(value: Any, annotation: Any) -> None:
    again = CONVERTER.decode(CONVERTER.encode(value), annotation)
    assert again == value
    assert type(again) is type(value)


@dataclasses.dataclass
class Wrapped:
    content: Cat | Dog | Wrapped


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.recursive(
        st.builds(Cat, st.text(max_size=5)) | st.builds(Dog, st.text(max_size=5), st.booleans()),
        lambda inner: st.builds(Wrapped, inner),
        max_leaves=3,
    )
)
def test_a_union_that_contains_itself_comes_back(value: Any) -> None:
    assert CONVERTER.decode(CONVERTER.encode(value), Cat | Dog | Wrapped) == value


def test_from_outside_nothing_of_the_json_is_left_out_if_a_member_takes_it_all() -> None:
    assert CONVERTER.decode('{"loud":true,"name":"a"}', Cat | Dog) == Dog("a", True)
    assert CONVERTER.decode('{"name":"a","age":3}', Cat | Dog) == Cat("a")
    assert CONVERTER.decode('{"name":"a","age":3}', Dog | Cat) == Dog("a")


def test_what_is_ambiguous_goes_to_the_first_and_equal_unions_are_kept_apart() -> None:
    @dataclasses.dataclass
    class Hamster:
        name: str

    forth, back = Cat | Hamster, Hamster | Cat
    assert forth == back
    for _ in range(2):
        assert type(CONVERTER.decode('{"name":"a"}', forth)) is Cat
        assert type(CONVERTER.decode('{"name":"a"}', back)) is Hamster
        assert type(CONVERTER.decode('["a"]', list[str] | tuple[str, ...])) is list
        assert type(CONVERTER.decode('["a"]', tuple[str, ...] | list[str])) is tuple


def test_a_field_that_is_set_after_construction_comes_back() -> None:
    home = Household([], {})
    home.checked = True
    assert CONVERTER.decode(CONVERTER.encode(home), Household).checked


@pytest.mark.parametrize(
    ("text", "annotation", "message"),
    [
        ("1", Cat | Dog, r"The JSON does not fit .*: no member of .* fits \(.*Cat: \$: Expected `object`, got `int`; "),
        (
            '[{"name":"a"},{}]',
            list[Cat | Dog],
            r"`\$\[1\]` of the JSON does not fit .*lacks|missing required field `name`",
        ),
        ('{"pets":[{"name":1}],"means":{}}', Household, r"`\$\.pets\[0\]`.*\$\.name: Expected `str`, got `int`"),
        ('{"pets":[]}', Household, "lacks the required field 'means'"),
        ('{"pets":[],"means":{"a b":1}}', Household, r"`\$\.means\['a b'\]`"),
        ('[{"name":"a"}]', tuple[Cat | Dog, int], "expected an array of length 2, got 1"),
        ("[]", Pair, "expected an array of length 1 to 2, got 0"),
        ("{}", Row, "lacks the required field 'pet'"),
        ("[]", Row, "Expected `object`, got `array`"),
        ('{"type":"other"}', Parcel[Cat | Dog], "its tag 'type' is not 'parcel'"),
        ('["d",{"name":"a"}]', Compact, r"\$\[0\].*'d' is none of the values|Invalid"),
        ('{"pet":{"name":"a"},"x":1}', Closed, r"unknown fields \['x'\]"),
        ('{"x":{"name":"a"}}', dict[int, Cat | Dog], "a key: "),
        ('{"radius":"x"}', Circle | Card, r"Circle: \$: radius: Input should be a valid integer"),
        ("[1", list[Cat | Dog], "truncated"),
        ("", Cat | Dog, "truncated"),
        ('{"name":"\ud800"}', Cat | Dog, "surrogates"),
        ("[" * 100_000, Cat | Dog, "nested too deeply"),
    ],
)
def test_misfits_are_named(text: str, annotation: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        CONVERTER.decode(text, annotation)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_json_is_a_payload_error_or_a_value(data: st.DataObject) -> None:
    value, annotation = data.draw(st.sampled_from(ROUND_TRIPS))
    text = CONVERTER.encode(value)
    start = data.draw(st.integers(0, len(text)))
    damaged = text[:start] + data.draw(st.text(max_size=2)) + text[data.draw(st.integers(start, len(text))) :]
    with contextlib.suppress(PayloadError):
        CONVERTER.decode(damaged, annotation)
