"""Reads what a request says in its query, its path and its headers."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote, unquote

from starlette.requests import Request

from holdfast.errors import InstanceNotFoundError
from holdfast.http.errors import BadRequestError
from holdfast.http.operations import TOKEN_HEADER
from holdfast.model.ids import is_entity
from holdfast.model.status import OrchestrationStatus

WAIT_S_MAX: Final = 24 * 60 * 60
PAGE: Final = 100
PAGE_MAX: Final = 1_000
_NO_TOKENS: Final = ("", "null")

_STATUSES: Final = {status.value.lower(): status for status in OrchestrationStatus}
_SHORT_YEAR: Final = re.compile(r"^\d{1,3}(?=-)")
_LOST_PLUS: Final = re.compile(r" (?=\d\d:?\d\d$)")
"""In a query a plus sign that is not encoded is a blank: `12:00:00+01:00` comes as `12:00:00 01:00`."""
_FORMATS: Final = ("%m/%d/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%Y/%m/%d")


def orchestration_id(request: Request) -> str:
    """Return the id, if it may be an orchestration's: an entity has no events, and nothing ends it but `delete`."""
    instance_id: str = request.path_params["instance_id"]
    if is_entity(instance_id):
        raise InstanceNotFoundError(instance_id)
    return instance_id


def flag(request: Request, name: str, default: bool) -> bool:
    """Read a boolean of the query; what is neither true nor false counts as absent, as the protocol has it."""
    found = choice(request, name)
    return default if found is None else found


def choice(request: Request, name: str) -> bool | None:
    return {"true": True, "false": False}.get(request.query_params.get(name, "").strip().lower())


def instant(request: Request, name: str) -> datetime | None:
    """Read an instant of the query; one without a time zone counts as UTC."""
    text = request.query_params.get(name, "").strip()
    if not text:
        return None
    found = _instant(text)
    if found is None:
        raise BadRequestError(f"{name} is {text[:40]!r}; it must be a time such as 2026-11-22T18:30:00Z")
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _instant(text: str) -> datetime | None:
    try:
        in_iso = _SHORT_YEAR.sub(lambda year: year[0].zfill(4), text)
        return datetime.fromisoformat(_LOST_PLUS.sub("+", in_iso) if in_iso.count(":") > 1 else in_iso)
    except ValueError:
        pass
    for form in _FORMATS:
        try:
            return datetime.strptime(text, form)  # noqa: DTZ007 - the caller adds the zone
        except ValueError:
            continue
    try:
        return parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None


def top(request: Request) -> int:
    """Read the size of a page. Larger ones than are answered are no error: the token says that there is more."""
    text = request.query_params.get("top")
    if text is None:
        return PAGE
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) == 0:
        raise BadRequestError(f"top is {text[:40]!r}; it must be a number of 1 or more")
    return min(int(text), PAGE_MAX)


def statuses(request: Request, *, ignore_unknown: bool) -> frozenset[OrchestrationStatus]:
    """Read `runtimeStatus`, which may be repeated and may have commas; none means all."""
    texts = [text.strip() for given in request.query_params.getlist("runtimeStatus") for text in given.split(",")]
    unknown = [text for text in texts if text and text.lower() not in _STATUSES]
    if unknown and not ignore_unknown:
        known = ", ".join(_STATUSES[each].value for each in _STATUSES)
        raise BadRequestError(f"runtimeStatus is {unknown[0][:40]!r}; it must be one of {known}")
    return frozenset(_STATUSES[text.lower()] for text in texts if text.lower() in _STATUSES)


def tags(request: Request) -> dict[str, str]:
    """Read `tag=key:value`, which may be repeated."""
    found: dict[str, str] = {}
    for text in request.query_params.getlist("tag"):
        key, colon, value = text.partition(":")
        if not (key and colon):
            raise BadRequestError(f"tag is {text[:40]!r}; it must be a key, a colon and a value")
        found[key] = value
    return found


def token(request: Request) -> str | None:
    """Read where a list goes on: after the instance of this id."""
    text = request.headers.get(TOKEN_HEADER, "")
    if text in _NO_TOKENS:
        return None
    mark, _, after = text.partition("=")
    if mark != "after" or not after:
        raise BadRequestError(f"{TOKEN_HEADER} is {text[:40]!r}; it must be what an earlier answer had there")
    return unquote(after)


def token_headers(after: str | None) -> dict[str, str]:
    # Marked, since an id may be "null", which is the end of a list for some clients.
    return {} if after is None else {TOKEN_HEADER: f"after={quote(after, safe='')}"}


def wait_timeout(request: Request) -> timedelta | None:
    """Return how long to wait for the result: only if both parameters are given.

    Nothing is polled here, but an interval that the protocol forbids is refused all the same.
    """
    if "timeout" not in request.query_params or "pollingInterval" not in request.query_params:
        return None
    timeout, interval = seconds(request, "timeout"), seconds(request, "pollingInterval")
    if interval > timeout:
        raise BadRequestError(f"pollingInterval is {interval:g} s, which is more than the timeout, {timeout:g} s")
    return timedelta(seconds=timeout)


def seconds(request: Request, name: str, default: float = 0) -> float:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found <= WAIT_S_MAX:
        raise BadRequestError(f"{name} is {text[:40]!r}; it must be a number of seconds from 0 to {WAIT_S_MAX}")
    return found


def number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise BadRequestError(f"{name} is {text[:40]!r}; it must be a whole number")
    return int(text)
