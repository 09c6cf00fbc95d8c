"""The rules by code, and what is said when one is broken."""

from __future__ import annotations

import enum
from typing import Final

import msgspec


class Severity(enum.StrEnum):
    """An error is wrong, a warning nearly always, an info only sometimes; the command fails for the first two."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Rule(msgspec.Struct, frozen=True):
    """One rule: `says` follows the subject of a finding, `fix` is what to do instead."""

    code: str
    severity: Severity
    says: str
    fix: str


class Finding(msgspec.Struct, frozen=True, order=True):
    """A place in orchestrator code that breaks a rule; lines and columns begin at 1.

    `chain` leads from an orchestrator to the function that the place is in.
    """

    path: str
    line: int
    column: int
    code: str
    severity: Severity
    message: str
    fix: str
    chain: tuple[str, ...] = ()

    def __str__(self) -> str:
        way = f" ({' -> '.join(self.chain)})" if len(self.chain) > 1 else ""
        return f"{self.path}:{self.line}:{self.column}: {self.code} {self.severity}: {self.message}{way}"


def words(text: str) -> frozenset[str]:
    """Read a table of names that stand one after the other."""
    return frozenset(text.split())


_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO

_TABLE: Final = (
    Rule("HF001", _E, "cannot be checked", "Make it a file that Python can parse."),
    # What differs from one replay to the next
    Rule("HF101", _E, "reads a clock, which says something else on each replay", "Use ctx.current_utc_datetime."),
    Rule("HF102", _E, "is random: each replay gets something else", "Use ctx.random."),
    Rule("HF103", _E, "makes another id on each replay", "Use ctx.new_uuid()."),
    Rule(
        "HF104",
        _E,
        "depends on the process or the machine that replays",
        "Hand it in with the input, or read it in an activity.",
    ),
    Rule("HF105", _E, "depends on the order of a set, which differs between processes", "Use sorted(...)."),
    Rule("HF106", _W, "is another number in each process", "Use a key of your own, or hashlib."),
    Rule(
        "HF107",
        _E,
        "is changed while the program runs, so a replay may see another value",
        "Hand it in with the input, or keep it in an entity.",
    ),
    Rule(
        "HF108",
        _E,
        "outlives the orchestrator, and is changed again on each replay",
        "Use a local variable, or an entity for what instances share.",
    ),
    Rule(
        "HF109",
        _W,
        "is made once and shared by all instances and all replays",
        "Use None or a tuple as the default, and make the list or dict inside.",
    ),
    Rule(
        "HF110",
        _E,
        "is asked for or not, depending on whether the code replays",
        "Ask always; `ctx.is_replaying` is for what has no part in the history.",
    ),
    # What reaches out of the orchestrator, or runs beside it
    Rule("HF201", _E, "holds up the host, or is no durable wait", "Use `await ctx.create_timer(timedelta(...))`."),
    Rule("HF202", _E, "uses files or the terminal, again on each replay", "Do it in an activity."),
    Rule(
        "HF203",
        _E,
        "reaches another process, service or database, again on each replay",
        "Do it in an activity; for HTTP there is ctx.call_http, too.",
    ),
    Rule(
        "HF204",
        _E,
        "runs in an order that no history records",
        "Use when_all(...) over activities, ctx.map or ctx.task_group().",
    ),
    Rule(
        "HF205",
        _E,
        "belongs to an event loop, and an orchestrator has none",
        "Use when_all, when_any, race, ctx.task_group(), or timeout= of the call.",
    ),
    Rule("HF206", _E, "is no durable task, so it cannot be awaited here", "Do it in an activity and await its call."),
    Rule("HF207", _W, "logs again on each replay", "Use ctx.create_replay_safe_logger(logger)."),
    Rule("HF208", _W, "prints again on each replay", "Use ctx.create_replay_safe_logger(logger)."),
    Rule(
        "HF209",
        _E,
        "belongs outside of orchestrators",
        "Use ctx.call_sub_orchestrator, ctx.start_orchestration, ctx.send_event or ctx.signal_entity; "
        "or do it in an activity.",
    ),
    # How durable tasks are used
    Rule(
        "HF301",
        _W,
        "makes a task that nobody waits for: its failure goes unseen, and the orchestration may end before it",
        "Await it, or combine it with when_all.",
    ),
    Rule(
        "HF302",
        _W,
        "is a task that is never used: its failure goes unseen, and the orchestration may end before it",
        "Await it, or name it `_` if that is what you want.",
    ),
    Rule("HF303", _E, "is not awaited, so it does not run at all", "Write `await` (in a generator `yield from`)."),
    Rule(
        "HF304",
        _E,
        "is an activity that is called like a function: it runs here, again on each replay",
        "Use `await ctx.call_activity(...)`.",
    ),
    Rule(
        "HF305",
        _W,
        "swallows the cancellation of what is awaited in it",
        "Use `except Exception:`, or raise it again.",
    ),
    Rule(
        "HF306",
        _W,
        "comes after `ctx.continue_as_new`: what is asked for now ends with this execution",
        "Return right after ctx.continue_as_new.",
    ),
    Rule("HF307", _E, "gets more than one input", "Put them into one dataclass, tuple or dict."),
    # What is perhaps meant so
    Rule(
        "HF401",
        _I,
        "has no end, and the history grows with each turn",
        "Call ctx.continue_as_new(...) now and then, and return.",
    ),
    Rule("HF402", _I, "is not registered under this name in what was checked", "Use the function instead of its name."),
    Rule(
        "HF403",
        _I,
        "is a module's list, dict or set, which any code may change",
        "Make it a tuple, a frozenset or a MappingProxyType; in upper case it counts as a constant.",
    ),
)

RULES: Final = {rule.code: rule for rule in _TABLE}
