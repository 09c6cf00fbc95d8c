"""A logger for orchestrators: silent during replay, so that each line is written once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import logging


class Replaying(Protocol):
    @property
    def is_replaying(self) -> bool: ...
    @property
    def is_inert(self) -> bool: ...


class ReplaySafeLogger:
    """Hands records to a logger of the standard library, unless its orchestration is replaying."""

    __slots__ = ("_execution", "_logger")

    def __init__(self, logger: logging.Logger, execution: Replaying) -> None:
        self._logger = logger
        self._execution = execution

    def log(self, level: int, message: str, /, *args: Any, **kwargs: Any) -> None:
        if not self._execution.is_replaying and not self._execution.is_inert:
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            self._logger.log(level, message, *args, **kwargs)

    def debug(self, message: str, /, *args: Any, **kwargs: Any) -> None:
        self.log(10, message, *args, **{"stacklevel": 2, **kwargs})

    def info(self, message: str, /, *args: Any, **kwargs: Any) -> None:
        self.log(20, message, *args, **{"stacklevel": 2, **kwargs})

    def warning(self, message: str, /, *args: Any, **kwargs: Any) -> None:
        self.log(30, message, *args, **{"stacklevel": 2, **kwargs})

    def error(self, message: str, /, *args: Any, **kwargs: Any) -> None:
        self.log(40, message, *args, **{"stacklevel": 2, **kwargs})

    def exception(self, message: str, /, *args: Any, **kwargs: Any) -> None:
        self.log(40, message, *args, **{"stacklevel": 2, "exc_info": True, **kwargs})
