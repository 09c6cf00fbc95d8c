"""Failures as values: how an exception crosses a boundary, and how it becomes one again."""

from __future__ import annotations

import sys
import traceback

import msgspec

from holdfast.errors import TaskFailedError

_STACK_CHARS_MAX = 16_000
_MESSAGE_CHARS_MAX = 8_000
_CAUSES_MAX = 10


class FailureDetails(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known about a failure.

    `error_type` is the qualified name of the exception class (`builtins.ValueError`); `inner_failure` is its cause.
    """

    error_type: str
    error_message: str
    stack_trace: str | None = None
    inner_failure: FailureDetails | None = None
    is_non_retriable: bool = False

    def is_caused_by(self, error: type[BaseException] | str) -> bool:
        """Return whether this failure, or one in its chain of causes, is of a class (subclasses too) or of a name."""
        failure: FailureDetails | None = self
        while failure is not None:
            if isinstance(error, str):
                if failure.error_type == error or failure.error_type.rpartition(".")[2] == error:
                    return True
            else:
                found = _loaded_class(failure.error_type)
                if found is not None and issubclass(found, error):
                    return True
            failure = failure.inner_failure
        return False


def qualified_name(cls: type) -> str:
    """Return the name under which an exception class travels."""
    return f"{cls.__module__}.{cls.__qualname__}"


def failure_from_exception(error: BaseException, *, non_retriable: bool = False) -> FailureDetails:
    """Describe an exception with its stack and up to ten causes, each text cut to a bounded length.

    A failure that came over a boundary before (a `TaskFailedError`) becomes the cause, with its type kept.
    """
    return _describe(error, non_retriable, _CAUSES_MAX)


def _describe(error: BaseException, non_retriable: bool, causes_max: int) -> FailureDetails:
    remote: FailureDetails | None = error.details if isinstance(error, TaskFailedError) else None
    inner = remote
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if inner is None and cause is not None and cause is not error and causes_max > 0:
        inner = _describe(cause, False, causes_max - 1)
    try:
        message = remote.error_message if remote else str(error)
    except Exception:
        message = "(the text of this error cannot be read)"
    stack = "".join(traceback.format_exception(type(error), error, error.__traceback__, chain=False))
    return FailureDetails(
        error_type=remote.error_type if remote else qualified_name(type(error)),
        error_message=_storable(message or type(error).__name__, _MESSAGE_CHARS_MAX),
        stack_trace=_storable(stack, _STACK_CHARS_MAX),
        inner_failure=inner,
        is_non_retriable=non_retriable,
    )


def _storable(text: str, chars_max: int) -> str:
    if len(text) > chars_max:
        half = chars_max // 2
        text = f"{text[:half]}\n... {len(text) - chars_max} characters cut ...\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _loaded_class(error_type: str) -> type[BaseException] | None:
    """Find an exception class by name among the modules that are loaded; stored text never causes an import."""
    module_name = error_type.rpartition(".")[0]
    while module_name:
        module = sys.modules.get(module_name)
        if module is not None:
            found: object = module
            for part in error_type[len(module_name) + 1 :].split("."):
                found = getattr(found, part, None)
            if isinstance(found, type) and issubclass(found, BaseException):
                return found
            return None
        module_name = module_name.rpartition(".")[0]
    return None


def exception_from_failure(details: FailureDetails) -> TaskFailedError:
    """Return a new `TaskFailedError` that is also an instance of the original class where that class is loaded."""
    cls = _loaded_class(details.error_type)
    error: TaskFailedError
    if cls is None or not issubclass(cls, Exception) or issubclass(cls, TaskFailedError):
        error = TaskFailedError(details)
    else:
        try:
            error = _both(cls).__new__(_both(cls), details.error_message)
        except TypeError:  # a class whose instances cannot be laid out beside another exception's
            error = TaskFailedError(details)
    try:
        error.args = (details.error_message,)
        error.details = details
    except AttributeError:  # a class with read-only properties of these names
        error = TaskFailedError(details)
    if details.inner_failure is not None:
        error.__cause__ = exception_from_failure(details.inner_failure)
    return error


def _both(cls: type[Exception]) -> type[TaskFailedError]:
    members = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__init__": TaskFailedError.__init__}
    return type(cls.__name__, (TaskFailedError, cls), members)
