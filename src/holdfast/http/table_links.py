"""The endpoints of signed links, which are for people: they answer with pages."""

from __future__ import annotations

from typing import Final

from holdfast.http.operations import (
    HTML,
    INTEGER,
    RETRIED,
    RETRY_HEADERS,
    STRING,
    Answer,
    Operation,
    Parameter,
    failure,
)

_GROUP: Final = "Signed links"
_PATH: Final = "/links/{instanceId}/{action}"
_ACTIONS: Final = "`action` is `raiseEvent/NAME`, `terminate`, `suspend`, `resume` or `cancel`."
_COVERED: Final = (
    Parameter("data", "the payload of the event, or the reason, as JSON", required=True),
    Parameter("exp", "the second of the epoch at which it expires", INTEGER, required=True),
)


def _page(status: int, text: str) -> Answer:
    return Answer(status, text, STRING, HTML, RETRY_HEADERS if status in RETRIED else ())


_REFUSED: Final = (
    _page(403, "It has expired, or something of it was changed."),
    failure(403, "A host for this machine only was asked by a page from elsewhere."),
    failure(401, "The host takes no links in, but has keys."),
    failure(404, "The host takes no links in."),
    failure(413, "The request has a body that is over `payload_bytes_max`; it needs none."),
)

LINK_OPERATIONS: Final = (
    Operation(
        name="askAboutLink",
        method="GET",
        path=_PATH,
        group=_GROUP,
        text=f"Show what a signed link does, and a button that does it; nothing happens yet. {_ACTIONS}",
        parameters=_COVERED,
        answers=(_page(200, "The page."), *_REFUSED),
        open_tail=True,
        is_signed=True,
    ),
    Operation(
        name="followLink",
        method="POST",
        path=_PATH,
        group=_GROUP,
        text="Do what a signed link says, with the instance that it is for. The request has no body.",
        parameters=_COVERED,
        answers=(
            _page(202, "The request is stored."),
            *_REFUSED,
            _page(404, "There is no such instance."),
            _page(410, "The instance has ended, or is in a state that does not allow it."),
            _page(429, "A bound is reached; nothing was stored."),
            _page(503, "The host is starting, recovering or stopping, or the store does not work."),
        ),
        open_tail=True,
        is_signed=True,
    ),
)
