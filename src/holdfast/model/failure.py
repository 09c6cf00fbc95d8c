"""Failures as values: how an exception crosses a boundary, and how it becomes one again."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import Any, cast

import msgspec

from holdfast.errors import TaskFailedError

_STACK_CHARS_MAX = 16_000
_MESSAGE_CHARS_MAX = 8_000
_CAUSES_MAX = 10
_ATTRIBUTES_CHARS_MAX = 16_000
_OWN_ATTRIBUTES = frozenset({"details", "instance_id", "args"})


class FailureDetails(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is known about a failure.

    `error_type` is the qualified name of the exception class (`builtins.ValueError`); `inner_failure` is its cause.
    `attributes` are the public attributes of the exception that are JSON-able, such as an error code.
    """

    error_type: str
    error_message: str
    stack_trace: str | None = None
    inner_failure: FailureDetails | None = None
    is_non_retriable: bool = False
    attributes: dict[str, Any] = {}

    def is_caused_by(self, error: type[BaseException] | str) -> bool:
        """Return whether this failure, or one in its chain of causes, is of a class or a name, or of a subclass.

        A name is qualified (`builtins.ValueError`) or bare (`ValueError`); the subclasses of a name are known where
        the class of the failure is loaded.
        """
        wanted = error if isinstance(error, str) else qualified_name(error)
        failure: FailureDetails | None = self
        while failure is not None:
            found = _loaded_class(failure.error_type)
            names = [failure.error_type] if found is None else [qualified_name(each) for each in found.__mro__]
            if any(wanted in (name, name.rpartition(".")[2]) for name in names):
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
    inner = None if remote is None else _cut(origin_of(remote), causes_max)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is None:
        cause = _first_of_group(error)
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
        attributes=remote.attributes if remote else _attributes(error),
    )


def _first_of_group(error: BaseException) -> BaseException | None:
    """A group has several causes; the first stands for them, since failures form a chain."""
    if not isinstance(error, BaseExceptionGroup):
        return None
    return cast("BaseExceptionGroup[BaseException]", error).exceptions[0]


def _attributes(error: BaseException) -> dict[str, Any]:
    """The public attributes as JSON values; what cannot be JSON, or is too long together, is left out."""
    found: dict[str, Any] = {}
    chars = 0
    own: dict[str, Any] = vars(error)
    if isinstance(error, OSError):  # keeps its own elsewhere
        own = {"errno": error.errno, **own}
    for name, value in own.items():
        if (
            name.startswith("_")
            or name in _OWN_ATTRIBUTES
            or value is None
            or callable(getattr(type(error), name, None))
        ):
            continue
        try:
            text = msgspec.json.encode(value)
        except Exception:
            continue  # an attribute is an extra: one that cannot travel must not hide the failure itself
        chars += len(name) + len(text)
        if chars > _ATTRIBUTES_CHARS_MAX:
            break
        found[name] = msgspec.json.decode(text)
    return found


def origin_of(failure: FailureDetails) -> FailureDetails:
    """Return a failure as it was before it was merely passed on, from one orchestration to the one that called it."""
    inner = failure.inner_failure
    passed_on = inner is not None and (inner.error_type, inner.error_message) == (
        failure.error_type,
        failure.error_message,
    )
    return inner if inner is not None and passed_on else failure


def _cut(failure: FailureDetails, causes_max: int) -> FailureDetails:
    """Leave out what is deeper in a chain of causes than anybody reads."""
    if failure.inner_failure is None:
        return failure
    inner = None if causes_max <= 0 else _cut(failure.inner_failure, causes_max - 1)
    return msgspec.structs.replace(failure, inner_failure=inner)


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
        except Exception:  # its instances cannot be laid out beside another exception's, or its own code objects
            error = TaskFailedError(details)
    try:
        for name, value in details.attributes.items():
            with contextlib.suppress(Exception):  # a read-only property is computed anew
                setattr(error, name, value)
        error.args = (details.error_message,)
        error.details = details
    except Exception:  # a class with read-only properties of these names
        error = TaskFailedError(details)
    if details.inner_failure is not None:
        error.__cause__ = exception_from_failure(details.inner_failure)
    return error


def _both(cls: type[Exception]) -> type[TaskFailedError]:
    members = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__init__": TaskFailedError.__init__}
    return type(cls.__name__, (TaskFailedError, cls), members)
