"""What goes wrong in a simulation, how often, and when it stops going wrong."""

from __future__ import annotations

import random
from typing import Final

import msgspec

from holdfast.errors import ConfigurationError


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How often things go wrong, until `total` of them have; then the world is well, and everything must end well.

    Probabilities are between 0 and 1; `*_steps` are mean numbers of steps of the event loop, and 0 means never.
    """

    total: int = 0
    crash_steps: int = 0
    """A host is killed, at whatever `await` it stands."""
    pause_steps: int = 0
    """A host stands still for a while, perhaps for longer than its lease, and then goes on as if nothing was."""
    evict_steps: int = 0
    """Whatever can leave the memory of a host does. It does not count as a fault, but ends with them."""
    clock_steps: int = 0
    """The wall clock of a host is set, by up to a minute."""
    commit_refused: float = 0.0
    """A commit fails, and the store says that nothing was written."""
    commit_unknown: float = 0.0
    """A commit fails, and nobody says whether it was applied."""
    call_failed: float = 0.0
    """Another call of the store fails."""
    crash_in_call: float = 0.0
    """A host is killed while the store does what it asked for, or after that."""
    call_slow: float = 0.0
    """A call of the store takes seconds."""
    reply_lost: float = 0.0
    """A client does not get the answer to a request that was done."""
    request_repeated: float = 0.0
    """A request that can be repeated reaches a host twice, at the same time."""
    activity_kills: float = 0.0
    """An activity takes its host with it, before or after it has done its work."""
    activity_slow: float = 0.0
    """An activity takes seconds."""

    def __post_init__(self) -> None:
        """Refuse what cannot be, and what would never strike."""
        given = {name: getattr(self, name) for name in self.__struct_fields__ if name != "total"}
        for name, value in given.items():
            if value < 0 or (value > 1 and not name.endswith("_steps")):
                raise ConfigurationError(f"{name} is {value}; it must be a probability, or a number of steps.")
        if self.total < 0 or (self.total == 0 and any(given.values())):
            raise ConfigurationError(f"total is {self.total}: it is how many faults there may be; give it, too.")

    @staticmethod
    def some(seed: object) -> Faults:
        """Return a mixture that the seed decides: some kinds often, some rarely, some not at all.

        A mixture for each seed finds more than all kinds in each: one kind of fault can hide what another would show
        (Groce et al., Swarm Testing, 2012).
        """
        dice = random.Random(f"{seed}/faults")
        rates = {name: dice.choice((0.0, 0.0, low, high)) for name, (low, high) in _RATES.items()}
        steps = {name: dice.choice((0, 0, often, rarely)) for name, (often, rarely) in _STEPS.items()}
        return Faults(total=dice.choice((1, 2, 4, 8, 16)), **rates, **steps)

    @staticmethod
    def often(seed: object) -> Faults:
        """Return the same for a short scenario, such as a test of one orchestration: all of it strikes early."""
        some = Faults.some(seed)
        rates = {name: min(getattr(some, name) * _OFTEN, _RATE_MAX) for name in _RARE}
        return msgspec.structs.replace(some, total=some.total * _OFTEN, **rates)


_RARE: Final = ("commit_refused", "commit_unknown", "crash_in_call", "reply_lost", "activity_kills", "activity_slow")
"""What a short scenario gives few chances for; the other kinds would use up the total before it has begun."""

_RATES: Final = {
    "commit_refused": (0.03, 0.25),
    "commit_unknown": (0.03, 0.2),
    "call_failed": (0.02, 0.1),
    "crash_in_call": (0.03, 0.15),
    "call_slow": (0.02, 0.1),
    "reply_lost": (0.05, 0.3),
    "request_repeated": (0.1, 0.4),
    "activity_kills": (0.02, 0.1),
    "activity_slow": (0.1, 0.5),
}

_STEPS: Final = {
    "crash_steps": (80, 600),
    "pause_steps": (60, 600),
    "evict_steps": (20, 200),
    "clock_steps": (200, 1_000),
}


_OFTEN: Final = 4
_RATE_MAX: Final = 0.4


class Trouble:
    """Decides what goes wrong now, as long as there is something left that may."""

    def __init__(self, faults: Faults, seed: object) -> None:
        self.faults = faults
        self.left = faults.total
        self.happened: list[str] = []
        """The faults so far, in order."""
        self._dice = random.Random(f"{seed}/trouble")

    def happens(self, kind: str, probability: float) -> bool:
        """Whether a fault of this kind strikes."""
        if probability <= 0 or self.left <= 0 or self._dice.random() >= probability:
            return False
        self.strike(kind)
        return True

    def strike(self, kind: str) -> None:
        """Count a fault."""
        self.left -= 1
        self.happened.append(kind)

    def coin(self) -> bool:
        return self._dice.random() < 0.5

    def between(self, low: int, high: int) -> int:
        """Return a whole number, both ends included."""
        return self._dice.randint(low, high)

    def steps_until(self, mean: int) -> int:
        """Return in how many steps something is next that happens each so many steps on average."""
        return max(1, int(self._dice.expovariate(1 / mean)))
