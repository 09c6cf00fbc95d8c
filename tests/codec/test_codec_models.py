"""Pydantic models, at the top and inside of everything else, though the codec does not import pydantic."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, RootModel, SecretStr, computed_field, field_validator

from holdfast.codec.converter import JsonConverter
from holdfast.errors import PayloadError

K = TypeVar("K")
CONVERTER = JsonConverter(payload_bytes_max=1_000_000)


class Line(BaseModel):
    model_config = ConfigDict(frozen=True)
    sku: str
    count: int = 1
    price: Decimal = Decimal("0.00")
    at: datetime | None = None
    took: timedelta = timedelta(0)
    data: bytes = b""
    tags: frozenset[str] = frozenset()


class Cart(BaseModel):
    lines: list[Line] = []
    gift: Line | None = None
    by_name: dict[str, Line] = {}
    numbers: dict[int, str] = {}
    seen: set[Line] = set()
    ratio: float = 0.0


class Page(BaseModel, Generic[K]):
    items: list[K]
    next: Page[K] | None = None


class Aliased(BaseModel):
    unit_price: int = Field(alias="unitPrice")
    ware: str = Field(default="", validation_alias="goods", serialization_alias="wares")


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    at: datetime
    names: set[str]
    pair: tuple[int, str]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> int:
        return len(self.names)


class Numbers(RootModel[set[str]]):
    pass


class Checked(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def _check(cls, n: int) -> int:
        if n == 0:
            raise ZeroDivisionError("zero")
        if n < 0:
            raise ValueError("n is negative")
        return n


class Link(BaseModel):
    url: HttpUrl


class Secretive(BaseModel):
    name: str = "x"
    key: SecretStr


class Loose(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    ok: int = 1
    thing: object


@dataclasses.dataclass
class Holder:
    line: Line
    lines: list[Line]
    maybe: Line | None = None
    by_id: dict[int, Line] = dataclasses.field(default_factory=dict)


class Envelope(msgspec.Struct):
    cart: Cart
    pages: tuple[Page[int], ...] = ()


class Pair(NamedTuple):
    line: Line
    n: int


class Row(TypedDict):
    line: Line


LINES = st.builds(
    Line,
    sku=st.text(max_size=9),
    count=st.integers(),
    price=st.decimals(allow_nan=False, allow_infinity=False),
    at=st.none() | st.datetimes(timezones=st.just(UTC)),
    took=st.timedeltas(min_value=timedelta(days=-9999), max_value=timedelta(days=9999)),
    data=st.just(b"abc"),
    tags=st.frozensets(st.text(max_size=3), max_size=4),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(LINES)
def test_models_come_back(line: Line) -> None:
    assert CONVERTER.decode(CONVERTER.encode(line), Line) == line
    holder = Holder(line, [line], line, {1: line})
    assert CONVERTER.decode(CONVERTER.encode(holder), Holder) == holder
    cart = Cart(lines=[line], gift=line, by_name={"a": line}, numbers={1: "a"}, seen={line, Line(sku="b")})
    assert CONVERTER.decode(CONVERTER.encode(Envelope(cart)), Envelope) == Envelope(cart)


A, B = Line(sku="a"), Line(sku="b", tags=frozenset("xyz"))


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ([A, B], list[Line]),
        ((A, 1), tuple[Line, int]),
        ({"a": A}, dict[str, Line]),
        ({"a": None, "b": B}, dict[str, Line | None]),
        ([[A], None], list[list[Line] | None]),
        ({A, B}, set[Line]),
        (None, Line | None),
        (Pair(A, 1), Pair),
        ({"line": A}, Row),
        (Page[int](items=[1], next=Page[int](items=[])), Page[int]),
        (Page[Line](items=[A]), Page[Line]),
        (Aliased(unitPrice=3, goods="g"), Aliased),
        (Strict(at=datetime(2026, 1, 1, tzinfo=UTC), names={"b", "a"}, pair=(1, "x")), Strict),
        (Numbers({"b", "a"}), Numbers),
        (Link(url=HttpUrl("https://example.com/x")), Link),
        ([A, Holder(A, [])], list[Line | Holder]),
    ],
    # The order of a set differs from process to process, and so would the names of the tests.
    ids=lambda part: type(part).__name__ if isinstance(part, set | Numbers) else str(part)[:40],
)
def test_models_come_back_from_everywhere(value: Any, annotation: Any) -> None:
    again = CONVERTER.decode(CONVERTER.encode(value), annotation)
    assert again == value
    assert type(again) is type(value)


def test_aliases_are_read_as_well_as_names() -> None:
    assert CONVERTER.encode(Aliased(unitPrice=3)) == '{"unit_price":3,"ware":""}'
    assert CONVERTER.decode('{"unitPrice":3,"goods":"g"}', Aliased) == Aliased(unitPrice=3, goods="g")
    assert CONVERTER.decode('[{"unitPrice":3}]', list[Aliased]) == [Aliased(unitPrice=3)]


def test_sets_in_models_are_written_sorted() -> None:
    words = [f"word {n}" for n in range(20)]
    assert CONVERTER.encode(Line(sku="a", tags=frozenset(words))) == CONVERTER.encode(
        Line(sku="a", tags=frozenset(reversed(words)))
    )
    seen = CONVERTER.decode(CONVERTER.encode(Cart(seen={Line(sku=word) for word in words})), Any)["seen"]
    assert [line["sku"] for line in seen] == sorted(words)
    assert CONVERTER.encode(Numbers(set(words))) == CONVERTER.encode(sorted(words))


@pytest.mark.parametrize(
    ("text", "annotation", "message"),
    [
        (
            '{"count":"x"}',
            Line,
            r"The JSON does not fit .*Line: sku: Field required; count: Input should be a valid integer",
        ),
        (
            '[{"sku":"a"},{"sku":1}]',
            list[Line],
            r"`\$\[1\]` of the JSON does not fit .*: sku: Input should be a valid str",
        ),
        (
            '{"line":{"sku":"a"},"lines":[{}]}',
            Holder,
            r"`\$\.lines\[0\]` of the JSON does not fit .*Holder: sku: Field req",
        ),
        ("null", Line, "the value: Input should be an object"),
        ("{", Line, "Invalid JSON"),
        ("\ud800", Line, "surrogates|does not fit"),
        ('{"n":-1}', Checked, "n: Value error, n is negative"),
        ('{"n":0}', Checked, "ZeroDivisionError: zero"),
        ('[{"n":0}]', list[Checked], r"`\$\[0\]` of the JSON .*: ZeroDivisionError: zero"),
    ],
)
def test_misfits_are_payload_errors_with_a_path(text: str, annotation: Any, message: str) -> None:
    with pytest.raises(PayloadError, match=message) as caught:
        CONVERTER.decode(text, annotation)
    assert "errors.pydantic.dev" not in str(caught.value)


def test_what_a_model_would_lose_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"\$\[0\].*a secret, which would be stored as asterisks"):
        CONVERTER.encode([Secretive(key=SecretStr("hush"))])
    with pytest.raises(PayloadError, match=r"\$\.ratio is nan"):
        CONVERTER.encode(Cart(ratio=math.nan))
    with pytest.raises(PayloadError, match=r"\$\[0\]\.thing cannot be written by pydantic: .*object"):
        CONVERTER.encode([Loose(thing=object())])
    with pytest.raises(PayloadError, match=r"\$\.data cannot be written by pydantic"):
        CONVERTER.encode(Line(sku="a", data=b"\xff"))


def test_a_model_class_is_no_value() -> None:
    with pytest.raises(PayloadError, match=r"\$\[0\] is a class"):
        CONVERTER.encode([Line])
