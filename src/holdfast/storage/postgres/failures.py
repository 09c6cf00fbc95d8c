"""What errors of the driver mean: whether something was applied, whether there is still a connection, what to do."""

from __future__ import annotations

from typing import Final

import asyncpg

from holdfast.storage.postgres.location import Location

_GONE: Final = ("08", "57P")
"""Errors of a connection, or of a server that is going down, as a statement learns of them that was sent too late."""
_ROLLED_BACK: Final = ("23", "40001", "40002", "40P01")
"""Errors at a COMMIT after which nothing was applied: integrity and serialization. 40003 says that it is not known."""
_REFUSED: Final = (*_ROLLED_BACK, "22", "25006", "26000", "42", "53", "55", "57014", "HF", "P0")
"""The same for a call: data, rights, a lack of something, a limit of time, and what the function itself raises."""

FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""What the driver raises."""


def state_of(error: BaseException | None) -> str:
    """Return the code that the server has given an error; empty if it is not from there."""
    return getattr(error, "sqlstate", None) or ""


def is_gone(error: BaseException | None) -> bool:
    """Whether an error is one of the connection, so that another one may do better."""
    return state_of(error).startswith(_GONE) or isinstance(error, asyncpg.InterfaceError)


def is_rollback(error: BaseException) -> bool:
    """Whether a COMMIT has certainly applied nothing."""
    return isinstance(error, asyncpg.PostgresError) and state_of(error).startswith(_ROLLED_BACK)


def is_refusal(error: BaseException) -> bool:
    """Whether a call that is a transaction by itself has certainly changed nothing: refused, or not even sent."""
    if isinstance(error, asyncpg.PostgresError):
        return state_of(error).startswith(_REFUSED)
    return isinstance(error, asyncpg.InterfaceError)


def explain(error: BaseException, location: Location) -> str:
    """Say what happened to which database, and what to do."""
    state = state_of(error)
    advice = next((text for prefix, text in _ADVICE.items() if state.startswith(prefix)), "")
    if not state and isinstance(error, OSError | TimeoutError):
        advice = "Is the server running, and may this host reach it?"
    kind = f"{type(error).__name__} {state}".strip()
    said = str(error.args[0] if advice == _POOLED else error)  # the driver's own advice is for its own callers
    return f"{location.text}: {said} ({kind}). {advice}".rstrip()


_POOLED: Final = "Is the server behind a pooler in transaction mode? Then say ?pooler=transaction in the URL."
_ADVICE: Final = {
    "26000": _POOLED,
    "42P05": _POOLED,
    "28": "Check the user and the password of the URL.",
    "3D": "Create the database first; Holdfast creates its schema in it.",
    "42501": "The user must be allowed to create a schema in the database, or own the one that is there.",
    "53": "The server is out of connections, memory or disk; nothing that was acknowledged is lost.",
    "57P": "The server is being shut down or started; the host tries again.",
    "25006": "The server takes no writes; name the primary, not a standby.",
}
