"""The pages of signed links: text, one button, nothing that is loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from html import escape
from types import MappingProxyType
from typing import Final

from starlette.responses import HTMLResponse, Response

_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        # The URL is a secret. Without any referrer browsers would not tell the origin of the form, either.
        "Referrer-Policy": "same-origin",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Robots-Tag": "noindex",
    }
)


def confirmation_page(instance_id: str, action: str, data: str | None, until: datetime) -> Response:
    """Return the page that asks; its form posts to the URL that it has itself."""
    lines = [
        f"<p>Send <strong>{escape(action)}</strong> to <strong>{escape(instance_id)}</strong>?</p>",
        "" if data is None else f"<pre>{escape(data)}</pre>",
        '<form method="post"><button type="submit">Confirm</button></form>',
        f"<p>This link is valid until {until:%Y-%m-%d %H:%M} UTC.</p>",
    ]
    return _page("Please confirm", "\n".join(lines), 200)


def message_page(title: str, text: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return _page(title, f"<p>{escape(text)}</p>", status, headers)


def _page(title: str, body: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title></head>\n<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )
    return HTMLResponse(page, status, headers={**_HEADERS, **(headers or {})})
