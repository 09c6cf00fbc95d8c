"""Which changes of its code an execution uses: decided when it first asks, and recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from holdfast.model.actions import MarkPatch
from holdfast.model.history import HistoryEvent, PatchMarked

if TYPE_CHECKING:
    from holdfast.replay.orchestration import Execution

_NOTHING: Final[Mapping[str, bool]] = MappingProxyType({})


class Patches:
    __slots__ = ("_decided", "_execution", "_marked")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._decided = _NOTHING
        self._marked: tuple[str, ...] = ()

    def replay_marks(self, events: Sequence[HistoryEvent]) -> None:
        """Note which patches were used for the first time in an episode that is replayed."""
        self._marked = tuple(event.name for event in events if isinstance(event, PatchMarked))

    def is_patched(self, name: str) -> bool:
        """Return whether the code after a change is to be used, as decided when this was asked first."""
        known = self._decided.get(name)
        if known is None:
            known = not self._execution.is_replaying or name in self._marked
            self._decided = {**self._decided, name: known}
            if known:
                self._execution.tell(MarkPatch(name))
        return known
