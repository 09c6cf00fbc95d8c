"""What a client learns about one orchestration, with payloads as Python values."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from holdfast.model.converter import DataConverter
from holdfast.model.failure import FailureDetails
from holdfast.model.status import OrchestrationState, OrchestrationStatus


class InstanceStatus:
    """The committed state of an instance at one moment.

    `input`, `output` and `custom_status` are plain JSON values, None also where there are none.
    """

    def __init__(self, state: OrchestrationState, converter: DataConverter) -> None:
        self.state = state
        """The same with payloads as JSON texts."""
        self._converter = converter

    @property
    def instance_id(self) -> str:
        return self.state.instance_id

    @property
    def execution_id(self) -> str:
        return self.state.execution_id

    @property
    def parent_instance_id(self) -> str | None:
        """The orchestration that called it as a sub-orchestration."""
        return self.state.parent_instance_id

    @property
    def version(self) -> str | None:
        return self.state.version

    @property
    def tags(self) -> dict[str, str]:
        return self.state.tags

    @property
    def events_awaited(self) -> tuple[str, ...]:
        """The names of the external events that its code waits for, the first 32."""
        return self.state.events_awaited

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def runtime_status(self) -> OrchestrationStatus:
        return self.state.runtime_status

    @property
    def created_at(self) -> datetime:
        return self.state.created_at

    @property
    def last_updated_at(self) -> datetime:
        return self.state.last_updated_at

    @property
    def failure(self) -> FailureDetails | None:
        """Why it failed, if it did."""
        return self.state.failure

    @property
    def parked(self) -> FailureDetails | None:
        """Why it waits for an operator, if it does."""
        return self.state.parked

    @property
    def input(self) -> Any:
        return self._plain(self.state.input)

    @property
    def output(self) -> Any:
        """What it returned; of what is suspended, terminated or cancelled the reason, if one was given."""
        return self._plain(self.state.output)

    @property
    def custom_status(self) -> Any:
        return self._plain(self.state.custom_status)

    def _plain(self, text: str | None) -> Any:
        return None if text is None else self._converter.decode(text, Any)

    def __repr__(self) -> str:
        return f"<InstanceStatus {self.instance_id!r} {self.name!r} {self.runtime_status.value}>"
