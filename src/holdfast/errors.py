"""Every public exception, in one tree.

::

    HoldfastError
    ├── ConfigurationError               a setting, a URL or a decorator is used wrongly
    ├── InvalidInputError (ValueError)   an argument was refused at the call site; nothing was stored
    │   ├── InvalidInstanceIdError
    │   └── PayloadError                 a value cannot be turned into JSON, or JSON into the annotated type
    │       └── PayloadTooLargeError
    ├── NotRegisteredError (LookupError) no function of this name in the app
    ├── InstanceError                    about one instance: has `.instance_id`
    │   ├── InstanceNotFoundError
    │   ├── InstanceAlreadyExistsError
    │   ├── InstanceNotRunningError      it has ended, or is not in a state that allows the request
    │   ├── InstanceNotEndedError        it cannot be purged yet: has `.status`
    │   ├── RewindRefusedError           its history does not allow to go back to that point
    │   ├── UpdateRejectedError          an update was refused by its validator, or has no handler; no effect
    │   ├── QueryFailedError             a query handler raised, or there is none of this name
    │   ├── InstanceParkedError          it waits for an operator: has `.details`
    │   └── OrchestrationFailedError     what `wait_for_completion` raises: has `.status`, `.details`
    ├── LockLostError                    a critical section has lost its locks: they expired, or were broken
    ├── TaskFailedError                  an activity, sub-orchestration or entity call failed: has `.details`
    ├── WaitTimeoutError (TimeoutError)  a wait with `timeout=` ran out
    ├── OrchestratorMisuseError          orchestrator code did what replay cannot reproduce
    │   ├── ForeignAwaitableError
    │   └── LockingRulesError
    ├── NonDeterminismError              replayed code asks for something else than its history says
    ├── VersionMismatchError             an instance needs another version of the code than this host has
    ├── CompensationFailedError          a compensation of a saga failed: has `.failures`
    ├── OverloadedError                  a bound is reached; nothing was stored; try again later
    │   └── InstanceElsewhereError       another host of the fleet has the instance now
    ├── DurableHttpError                 an HTTP request could not be made or answered
    │   ├── DurableHttpTimeoutError (TimeoutError)
    │   └── ForbiddenAddressError        the policy forbids this address; nothing was sent to it
    ├── HostStoppedError                 the host is stopping or has stopped
    ├── HostUnreachableError             a host elsewhere cannot be reached; nothing was stored
    └── StorageError
        ├── StoreInUseError              another process owns the store
        ├── OwnershipLostError           another process took the store over; this one must stop
        ├── CommitFailedError            a commit failed: has `.outcome_unknown`
        └── CorruptRecordError           a stored record cannot be read

    BaseException
    └── CancelledError                   raised at the `await` of a task or an orchestration that is cancelled

    UserWarning
    └── StorageWarning                   the store works, but where it is kept puts it at risk
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.model.failure import FailureDetails


class HoldfastError(Exception):
    """Base class of everything that Holdfast raises."""


class ConfigurationError(HoldfastError):
    """A setting, a URL or a decorator is used wrongly."""


class InvalidInputError(HoldfastError, ValueError):
    """An argument was refused at the call site; nothing was stored."""


class InvalidInstanceIdError(InvalidInputError):
    """The text cannot be an instance id."""


class PayloadError(InvalidInputError):
    """A value cannot be turned into JSON, or JSON cannot be turned into the annotated type."""


class PayloadTooLargeError(PayloadError):
    """An encoded value is over the size limit."""


class NotRegisteredError(HoldfastError, LookupError):
    """The app has no function of this kind and name."""


class InstanceError(HoldfastError):
    """Something about one instance."""

    def __init__(self, instance_id: str, message: str) -> None:
        super().__init__(message)
        self.instance_id = instance_id


class InstanceNotFoundError(InstanceError):
    """There is no instance of this id, or not with the execution that was meant."""

    def __init__(self, instance_id: str, execution_id: str | None = None) -> None:
        what = f"instance {instance_id!r}" + ("" if execution_id is None else f" with the execution {execution_id!r}")
        super().__init__(instance_id, f"There is no {what} in this task hub.")


class InstanceAlreadyExistsError(InstanceError):
    """An instance of this id exists and is not finished."""

    def __init__(self, instance_id: str, status: str) -> None:
        super().__init__(
            instance_id,
            f"An instance {instance_id!r} exists already and is {status}. "
            "Wait for it, terminate it, or start another instance id.",
        )
        self.status = status


class InstanceNotRunningError(InstanceError):
    """The instance is in a state that does not allow the request."""

    def __init__(self, instance_id: str, status: str, request: str) -> None:
        super().__init__(instance_id, f"Cannot {request} instance {instance_id!r}: it is {status}.")
        self.status = status


class InstanceNotEndedError(InstanceError):
    """The instance can be purged only when nothing can happen to it any more; nothing was changed."""

    def __init__(self, instance_id: str, status: str, reason: str | None = None) -> None:
        super().__init__(
            instance_id, f"Instance {instance_id!r} cannot be purged: it {reason or f'is {status}, and has not ended'}."
        )
        self.status = status


class RewindRefusedError(InstanceError):
    """The history of the instance does not allow to go back to that point; nothing was changed."""


class InstanceParkedError(InstanceError):
    """The instance was set aside, unharmed, until an operator mends the cause and resumes it."""

    def __init__(self, instance_id: str, details: FailureDetails) -> None:
        is_entity = instance_id.startswith("@")
        super().__init__(
            instance_id,
            f"Instance {instance_id!r} is parked: {details.error_message} "
            "Nothing of it is lost: mend the cause, then resume it" + ("." if is_entity else " or terminate it."),
        )
        self.details = details


class OrchestrationFailedError(InstanceError):
    """The awaited orchestration ended without a result.

    Attributes: `status` is the wire name (`Failed`, `Terminated`, `Canceled`); `details` says why, if it failed.
    """

    def __init__(self, instance_id: str, status: str, details: FailureDetails | None) -> None:
        why = f": {details.error_type}: {details.error_message}" if details else "."
        super().__init__(instance_id, f"Orchestration {instance_id!r} ended as {status}{why}")
        self.status = status
        self.details = details


class LockLostError(HoldfastError):
    """A critical section has lost its locks: they expired, were broken, or were given back as it was parked.

    What it still asks of the entities that were locked is refused with this, since others may have changed them.
    """


class TaskFailedError(HoldfastError):
    """An activity, a sub-orchestration or an entity operation failed.

    Where the class of the remote exception is loaded in this process, the raised error is an instance of that
    class too, so that `except MyError` works around a call. `details` has the type name, message and remote stack.
    """

    details: FailureDetails

    def __init__(self, details: FailureDetails) -> None:
        super().__init__(details.error_message)
        self.details = details

    def is_caused_by(self, error: type[BaseException] | str) -> bool:
        """Return whether the failure or one of its causes is of a class or a name; see `FailureDetails`."""
        return self.details.is_caused_by(error)

    def __str__(self) -> str:
        return f"{self.details.error_type}: {self.details.error_message}"


class WaitTimeoutError(HoldfastError, TimeoutError):
    """A wait with a `timeout` ran out."""


class OrchestratorMisuseError(HoldfastError):
    """Orchestrator code did something that a replay cannot reproduce."""


class ForeignAwaitableError(OrchestratorMisuseError):
    """Orchestrator code awaited something that is not a durable task."""


class LockingRulesError(OrchestratorMisuseError):
    """A critical section was used against its rules."""


class NonDeterminismError(HoldfastError):
    """Replayed code asked for something else than the history of its instance says."""


class VersionMismatchError(HoldfastError):
    """An instance was started with a version that the code of this host does not match."""


class CompensationFailedError(HoldfastError):
    """Some compensations of a saga failed; the others were made all the same.

    Attributes: `failures` are their errors, in the order in which they happened; `__cause__` is why the saga was
    undone.
    """

    def __init__(self, failures: tuple[Exception, ...]) -> None:
        texts = "; ".join(str(failure) for failure in failures)
        super().__init__(f"{len(failures)} compensation(s) failed, and must be made by hand: {texts}")
        self.failures = failures


class UpdateRejectedError(InstanceError):
    """An update was refused by its validator, or the orchestration has no handler for it; it had no effect."""


class QueryFailedError(InstanceError):
    """A query could not be answered."""


class CancelledError(BaseException):
    """A durable task, or the whole orchestration, was cancelled.

    It is no `Exception`, so that `except Exception` around a call does not swallow a cancellation. Let it pass,
    after cleaning up in `finally`.
    """


class OverloadedError(HoldfastError):
    """A bound is reached; nothing was stored. Try again later."""


class InstanceElsewhereError(OverloadedError):
    """Another host of the fleet has the instance, or gets it just now; nothing was stored. Try again soon."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(
            f"Instance {instance_id!r} is not with this host, but with another one of the fleet; nothing was stored. "
            "Try again soon."
        )
        self.instance_id = instance_id


class DurableHttpError(HoldfastError):
    """An HTTP request could not be made or answered; an answer of any status is no error."""


class DurableHttpTimeoutError(DurableHttpError, TimeoutError):
    """The answer to an HTTP request was not there in time; whether the request took effect is not known."""


class ForbiddenAddressError(DurableHttpError):
    """The policy for outgoing requests forbids this address; nothing was sent to it."""


class HostStoppedError(HoldfastError):
    """The host is stopping or has stopped; nothing was stored."""


class HostUnreachableError(HoldfastError):
    """A host elsewhere cannot be reached, or gives no answer to what only reads; nothing was stored."""


class StorageError(HoldfastError):
    """The store cannot do what was asked."""


class StoreInUseError(StorageError):
    """Another process owns the store.

    Attributes: `share_is_due` is True when the store can be shared, and its owners are about to give up a part of it.
    """

    share_is_due = False

    def __init__(self, message: str, *, share_is_due: bool = False) -> None:
        super().__init__(message)
        if share_is_due:
            self.share_is_due = True


class OwnershipLostError(StorageError):
    """Another process took the store over; nothing more is written by this one."""


class CommitFailedError(StorageError):
    """A commit failed, and with it everything that was waiting for it.

    Attributes: `outcome_unknown` is True when the store could not say whether it was applied. Repeat the request
    with the same instance id, or look at its status first.
    """

    def __init__(self, message: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class CorruptRecordError(StorageError):
    """A stored record cannot be read; only the instance that it belongs to is affected."""


class StorageWarning(UserWarning):
    """The store works, but where it is kept puts it at risk."""
