"""Messages to a task hub from within a user's own transaction: they are sent when, and only if, that commits."""

from holdfast.outbox.outbox import Outbox, SyncOutbox

__all__ = ["Outbox", "SyncOutbox"]
