"""Which instance keeps the store from going on, when commits fail again and again.

A failed commit takes everything back that was not durable, for all instances. So one whose changes cannot be stored
would stop the node for ever. After two failures without progress transitions are committed one by one; then the
failing one is known. It is blamed only if others are stored meanwhile: on a full disk nobody is.
"""

from __future__ import annotations

_FAILURES_BEFORE_ISOLATION = 2
_FAILURES_BEFORE_PARKING = 2
_FAILURES_BEFORE_BANNING = 4


class Culprits:
    def __init__(self) -> None:
        self.failures_in_a_row = 0
        """Failures since the last commit that succeeded."""
        self.banned: set[str] = set()
        """Instances that could not even be parked; they are left alone until the host is started again."""
        self._isolating = False
        self._blamed: dict[str, int] = {}
        self._to_park: dict[str, Exception] = {}

    def group_max(self, configured: int) -> int:
        """Return how many transitions one commit may have now."""
        return 1 if self._isolating else configured

    def failed(self, error: Exception, group: list[str], *, progress: bool) -> None:
        """Note a failure.

        Args:
            group: the instances of the group that failed.
            progress: whether this node had stored anything before.
        """
        self.failures_in_a_row = 0 if progress else self.failures_in_a_row + 1
        if self._isolating and len(group) == 1:
            self._blame(group[0], error, progress)
        if self.failures_in_a_row >= _FAILURES_BEFORE_ISOLATION:
            self._isolating = True

    def _blame(self, instance_id: str, error: Exception, progress: bool) -> None:
        count = self._blamed.get(instance_id, 0) + (1 if progress or instance_id not in self._blamed else 0)
        self._blamed[instance_id] = count
        if count >= _FAILURES_BEFORE_BANNING:
            self.banned.add(instance_id)
        elif count >= _FAILURES_BEFORE_PARKING:
            self._to_park[instance_id] = error

    def suspect(self, instance_id: str, error: Exception) -> None:
        """Note an instance in whose step a bug of ours showed."""
        self._to_park[instance_id] = error

    def take_suspects(self) -> dict[str, Exception]:
        """Return the instances to be parked now."""
        suspects, self._to_park = self._to_park, {}
        return suspects

    def went_well(self) -> None:
        """Note that a node has been storing for a while: transitions may share commits again."""
        self._isolating = False
        self._blamed.clear()
