"""How a command ends early."""

from __future__ import annotations

from typing import Final

from holdfast.errors import HoldfastError

NOT_WELL: Final = 1
CANNOT_START: Final = 2
LOST_STORE: Final = 3


class CommandError(HoldfastError):
    """The command ends with a message for its user, and an exit code."""

    def __init__(self, message: str, exit_code: int = CANNOT_START) -> None:
        super().__init__(message)
        self.exit_code = exit_code
