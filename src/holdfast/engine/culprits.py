"""Which instance keeps the store from going on, when commits fail again and again.

A failed commit takes back all that was not durable, for all instances. So one whose changes cannot be stored would
stop the node for ever. After two failures without progress transitions are committed one by one; then the one that
failed is known, and held back for a moment. If others are stored meanwhile, and that happens again and again, it is
guilty and parked. On a full disk nobody is stored, and nobody is blamed.
"""

from __future__ import annotations

from typing import Final

_FAILURES_BEFORE_ISOLATION = 2
_PROOFS_BEFORE_PARKING = 4


_BACK_OFF_S: Final = (0.0, 0.1, 1.0, 5.0)


class Culprits:
    def __init__(self) -> None:
        self.failures_in_a_row = 0
        """Failures since the last commit that succeeded."""
        self.banned: set[str] = set()
        """Instances that could not even be parked; they are left alone until the host is started again."""
        self._isolating = False
        self._held: dict[str, Exception] = {}
        self._proofs: dict[str, int] = {}
        self._parking: dict[str, Exception] = {}

    @property
    def is_isolating(self) -> bool:
        """Whether each transition must be committed alone."""
        return self._isolating

    def back_off_s(self) -> float:
        """Return how long to wait before the store is taken again."""
        return _BACK_OFF_S[min(self.failures_in_a_row, len(_BACK_OFF_S) - 1)]

    def left_alone(self) -> set[str]:
        """Return the instances that a new node must not touch for now."""
        return self.banned | self._held.keys()

    def failed(self, error: Exception, group: list[str], *, progress: bool) -> None:
        """Note a failure.

        Args:
            group: the instances of the group that failed.
            progress: whether the node had stored anything before.
        """
        self.failures_in_a_row = 0 if progress else self.failures_in_a_row + 1
        if self._isolating and len(group) == 1:
            if self._proofs.get(group[0], 0) >= _PROOFS_BEFORE_PARKING:
                self.banned.add(group[0])
            else:
                self._held[group[0]] = error
        if self.failures_in_a_row >= _FAILURES_BEFORE_ISOLATION:
            self._isolating = True

    def suspect(self, instance_id: str, error: Exception) -> None:
        """Note an instance in whose step a bug of ours showed: it is parked at once."""
        self._parking[instance_id] = error

    def judge(self, *, progress: bool) -> None:
        """Decide about those held back, knowing whether others were stored meanwhile; then they may go on."""
        held, self._held = self._held, {}
        for instance_id, error in held.items():
            self._proofs[instance_id] = self._proofs.get(instance_id, 0) + progress
            if self._proofs[instance_id] >= _PROOFS_BEFORE_PARKING:
                self._parking[instance_id] = error
        if not held:
            self._isolating = False
            self._proofs.clear()

    def take_guilty(self) -> dict[str, Exception]:
        """Return the instances to be parked now."""
        guilty, self._parking = self._parking, {}
        return guilty
