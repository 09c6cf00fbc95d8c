"""URLs as they may stand in logs: without keys and signatures."""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import unquote_plus

_SECRETS: Final = frozenset({"code", "sig"})


def redacted_query(query: str) -> str:
    """Return a query string with stars for the values of secret parameters, however their names are written."""
    return "&".join(_redacted(part) for part in query.split("&"))


def _redacted(part: str) -> str:
    name, separator, _ = part.partition("=")
    return f"{name}=***" if separator and unquote_plus(name).strip().lower() in _SECRETS else part


def redacted_url(url: str) -> str:
    path, separator, query = url.partition("?")
    return f"{path}{separator}{redacted_query(query)}"


class RedactSecrets(logging.Filter):
    """Takes keys and signatures out of the URLs in log records; for the logger `uvicorn.access`."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(redacted_url(each) if isinstance(each, str) else each for each in record.args)
        return True
