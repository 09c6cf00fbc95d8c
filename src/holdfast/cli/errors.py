"""How a command ends: its exit code, and the message for its user."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import typer

from holdfast.errors import (
    CommitFailedError,
    HoldfastError,
    HostStoppedError,
    HostUnreachableError,
    InstanceAlreadyExistsError,
    InstanceNotEndedError,
    InstanceNotFoundError,
    InstanceNotRunningError,
    InstanceParkedError,
    OrchestrationFailedError,
    OverloadedError,
    OwnershipLostError,
    QueryFailedError,
    RewindRefusedError,
    TaskFailedError,
    UpdateRejectedError,
    WaitTimeoutError,
)

NOT_WELL: Final = 1
CANNOT_START: Final = 2
LOST_STORE: Final = 3
NO_HOST: Final = 3
NOT_FOUND: Final = 4
CONFLICT: Final = 5
TIMED_OUT: Final = 6

EXIT_CODES: Final = {
    0: "Done, or stopped in good order.",
    NOT_WELL: "What was looked at is not well: an orchestration or operation that failed, histories that do not "
    "replay, findings of `lint` or `doctor`, a question that was answered with no.",
    CANNOT_START: "It could not begin: the command line, a setting, a file or a store does not allow it.",
    NO_HOST: "No host answers, or it is stopping or overloaded: try again later. `run`: another process has taken "
    "the store.",
    NOT_FOUND: "There is no such instance or entity.",
    CONFLICT: "The instance is in a state that does not allow it: it exists, has ended, has not ended.",
    TIMED_OUT: "The time of `--timeout` is over; what was asked for goes on.",
}

_CODES: Final[tuple[tuple[type[HoldfastError], int], ...]] = (
    (OrchestrationFailedError, NOT_WELL),
    (InstanceParkedError, NOT_WELL),
    (TaskFailedError, NOT_WELL),
    (QueryFailedError, NOT_WELL),
    (UpdateRejectedError, NOT_WELL),
    (HostUnreachableError, NO_HOST),
    (HostStoppedError, NO_HOST),
    (CommitFailedError, NO_HOST),
    (OverloadedError, NO_HOST),
    (OwnershipLostError, LOST_STORE),
    (InstanceNotFoundError, NOT_FOUND),
    (InstanceAlreadyExistsError, CONFLICT),
    (InstanceNotRunningError, CONFLICT),
    (InstanceNotEndedError, CONFLICT),
    (RewindRefusedError, CONFLICT),
    (WaitTimeoutError, TIMED_OUT),
)
"""The first class that fits; for all others it is that the command could not begin."""


class CommandError(HoldfastError):
    """The command ends with a message for its user, and an exit code."""

    def __init__(self, message: str, exit_code: int = CANNOT_START) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def exit_code_of(error: HoldfastError) -> int:
    """Return the exit code that tells a script what kind of error it was."""
    if isinstance(error, CommandError):
        return error.exit_code
    return next((code for kind, code in _CODES if isinstance(error, kind)), CANNOT_START)


@contextmanager
def leaving() -> Generator[None, None, None]:
    """Turn what a command raises for its user into a message and an exit code."""
    try:
        yield
    except HoldfastError as error:
        typer.echo(f"holdfast: {error}", err=True)
        sys.exit(exit_code_of(error))
