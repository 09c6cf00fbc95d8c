"""Web pages of other origins: none may read answers, but for those that are named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from holdfast.errors import ConfigurationError
from holdfast.http.request_ids import HEADER

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")
_CONTINUATION: Final = "x-ms-continuation-token"


def cors_middleware(origins: Sequence[str], *, loopback_only: bool) -> list[Middleware]:
    """Return what lets pages of some origins use the API; no cookies are allowed, as there are none.

    Raises:
        ConfigurationError: if one is no origin, or all are to reach a host that has no keys.
    """
    for origin in origins:
        if origin == "*":
            if loopback_only:
                raise ConfigurationError(
                    "Without a key the origin '*' would let every web page steer this host; name the origins, "
                    "or set a key."
                )
        elif not _ORIGIN.fullmatch(origin):
            raise ConfigurationError(f"{origin!r} is no origin; write it as https://ops.example.com, without a path.")
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["x-functions-key", "content-type", _CONTINUATION, HEADER],
            expose_headers=["location", "retry-after", _CONTINUATION, HEADER],
        )
    ]
