"""Random orchestrations: programs drawn from a grammar, the orchestrator that runs them, and what may come of them.

A program is a list of steps, each a list of plain values. The orchestrator returns what each step gave. `check` is the
reference model: it says whether that is possible at all, without knowing anything of how it came about.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from holdfast import (
    App,
    Entity,
    EntityId,
    OrchestrationContext,
    RetryPolicy,
    TaskFailedError,
    activity_context,
    when_all,
    when_any,
)

Step = list[Any]
ENTITIES = ("a", "b", "c")
RETRY = RetryPolicy(max_attempts=4, first_retry_interval=timedelta(seconds=1))


@dataclass
class Outside:
    """What the activities did to the world, and may do."""

    done: list[tuple[str, str]] = field(default_factory=list)
    """(token, idempotency key) of each time that one ran."""
    is_mended: bool = False
    said: Callable[[str], bool] = lambda _: True
    """Whether something durable says this."""


class Grammar:
    """Draws programs. Every step that has an effect gets a token of its own."""

    def __init__(self, seed: object, prefix: str) -> None:
        self.dice = random.Random(f"{seed}/{prefix}")
        self._prefix = prefix
        self._tokens = 0

    def token(self) -> str:
        self._tokens += 1
        return f"{self._prefix}{self._tokens}."

    def program(self, depth: int = 0, *, is_root: bool = True) -> list[Step]:
        dice = self.dice
        kinds = ["call", "flaky", "broken", "fan", "race", "timer", "entity", "signal", "lock", "status", "uuid"]
        if is_root:
            kinds += ["event", "event", "event", "again", "again", "shout", "forsake"]
        if depth < 2:
            kinds += ["child", "children", "detached"]
        steps = [self._step(dice.choice(kinds), depth) for _ in range(dice.randint(1, 5 - depth))]
        return steps

    def _step(self, kind: str, depth: int) -> Step:
        dice = self.dice
        match kind:
            case "call" | "broken":
                return [kind, self.token(), dice.randrange(100)]
            case "flaky":
                return [kind, self.token(), dice.randrange(3)]
            case "fan":
                return [kind, [[self.token(), dice.randrange(100)] for _ in range(dice.randint(0, 4))]]
            case "race":
                return [kind, self.token(), dice.randrange(100), dice.choice((1, 500, 5_000))]
            case "timer":
                return [kind, dice.choice((0, 1, 1_000, 30_000))]
            case "event":
                return [kind, dice.choice((None, 1, 2_000))]
            case "entity":
                return [kind, dice.choice(ENTITIES), self.token(), dice.choice(("add", "add", "add_slowly"))]
            case "signal":
                return [kind, dice.choice(ENTITIES), self.token(), dice.choice((0, 0, 5_000))]
            case "lock":
                names = dice.sample(ENTITIES, dice.randint(1, 2))
                return [kind, names, [self.token() for _ in names], dice.randrange(2)]
            case "shout":
                return [kind, dice.choice(ENTITIES), self.token()]
            case "child" | "detached" | "forsake":
                return [kind, self.program(depth + 1, is_root=False)]
            case "children":
                return [kind, [self.program(depth + 1, is_root=False) for _ in range(dice.randint(1, 3))]]
            case _:
                return [kind]


def make_app(outside: Outside) -> App:
    app = App()

    @app.entity
    @dataclass
    class Log(Entity):
        tokens: list[str] = field(default_factory=list)

        def add(self, token: str) -> int:
            assert token not in self.tokens, f"{token} is added twice"
            self.tokens.append(token)
            return len(self.tokens)

        async def add_slowly(self, token: str) -> int:
            assert outside.said(token), f"{token} is being added, and nothing durable says so"
            return self.add(token)

        def count(self) -> int:
            return len(self.tokens)

    @app.activity
    async def double(call: tuple[str, int]) -> int:
        outside.done.append((call[0], activity_context().idempotency_key))
        return 2 * call[1]

    @app.activity(retry=RETRY)
    def flaky(call: tuple[str, int]) -> int:
        outside.done.append((call[0], activity_context().idempotency_key))
        if activity_context().attempt <= call[1]:
            raise ConnectionError("not yet")
        return call[1]

    @app.activity
    def broken(call: tuple[str, int]) -> int:
        if outside.is_mended:
            return call[1]
        raise ValueError(call[0])

    @app.orchestrator
    async def program(ctx: OrchestrationContext, given: dict[str, Any]) -> list[Any]:
        """Run the steps from `at` on; what the earlier ones gave is in `results`."""
        results: list[Any] = given["results"]
        for number in range(given["at"], len(given["steps"])):
            step = given["steps"][number]
            if step[0] == "again" and not given.get("is_again"):
                ctx.continue_as_new({**given, "at": number, "results": results, "is_again": True})
                return []
            results.append(await run_step(ctx, step))
            given = {**given, "is_again": False}
        return results

    @app.orchestrator
    async def careful(ctx: OrchestrationContext, steps: list[Step]) -> list[Any]:
        """Fails at the first broken step, so that it can be rewound."""
        return [await run_step(ctx, step, fails=True) for step in steps]

    async def run_step(ctx: OrchestrationContext, step: Step, *, fails: bool = False) -> Any:
        match step:
            case ["call", token, number]:
                return await ctx.call_activity(double, (token, number))
            case ["flaky", token, times]:
                return await ctx.call_activity(flaky, (token, times))
            case ["broken", token, number]:
                try:
                    return await ctx.call_activity(broken, (token, number))
                except TaskFailedError as error:
                    if fails:
                        raise
                    return error.details.error_message
            case ["fan", calls]:
                return await when_all([ctx.call_activity(double, (token, number)) for token, number in calls])
            case ["race", token, number, milliseconds]:
                call = ctx.call_activity(double, (token, number))
                timer = ctx.create_timer(timedelta(milliseconds=milliseconds))
                if await when_any([call, timer]) is call:
                    timer.cancel()
                    return await call
                return "late"
            case ["timer", milliseconds]:
                before = ctx.current_utc_datetime
                await ctx.create_timer(timedelta(milliseconds=milliseconds))
                return (ctx.current_utc_datetime - before) // timedelta(milliseconds=1)
            case ["event", milliseconds]:
                limit = None if milliseconds is None else timedelta(milliseconds=milliseconds)
                try:
                    return await ctx.wait_for_external_event("e", timeout=limit)
                except TimeoutError:
                    return "late"
            case ["entity", key, token, operation]:
                return await ctx.call_entity(EntityId(Log, key), operation, token)
            case ["signal", key, token, milliseconds]:
                due = timedelta(milliseconds=milliseconds) if milliseconds else None
                ctx.signal_entity(EntityId(Log, key), Log.add, token, due=due)
                return None
            case ["shout", key, token]:  # and do not wait for the answer, which may find another execution
                ctx.call_entity(EntityId(Log, key), Log.add, token)
                return None
            case ["forsake", steps]:
                ctx.call_sub_orchestrator(program, {"steps": steps, "at": 0, "results": []})
                return None
            case ["pair", token, number, other]:
                calls = [ctx.call_activity(double, (token, number)), ctx.call_activity(broken, (other, number))]
                return await when_all(calls)
            case ["salvage", token, number, other]:
                failure: TaskFailedError | None = None
                try:
                    first = await ctx.call_activity(broken, (other, number))
                except TaskFailedError as error:
                    first, failure = 0, error
                second = await ctx.call_activity(double, (token, number))  # what a rewind must not do again
                if failure is not None:
                    raise failure
                return [second, first]
            case ["lock", keys, tokens, pauses]:
                async with ctx.lock(*(EntityId(Log, key) for key in keys)):
                    found = []
                    for key, token in zip(keys, tokens, strict=True):
                        count = await ctx.call_entity(EntityId(Log, key), Log.count)
                        if pauses:
                            await ctx.create_timer(timedelta(seconds=2))
                        found.append([count, await ctx.call_entity(EntityId(Log, key), Log.add, token)])
                    return found
            case ["status"]:
                ctx.set_custom_status("here")
                return None
            case ["uuid"]:
                return f"{ctx.new_uuid()} {ctx.random.random()}"
            case ["child", steps]:
                return await ctx.call_sub_orchestrator(program, {"steps": steps, "at": 0, "results": []})
            case ["children", programs]:
                return await when_all(
                    [ctx.call_sub_orchestrator(program, {"steps": steps, "at": 0, "results": []}) for steps in programs]
                )
            case ["detached", steps]:
                ctx.start_orchestration(program, {"steps": steps, "at": 0, "results": []})
                return None
            case _:
                return None

    _ = (careful, broken)
    return app


def tokens_of(steps: list[Step], *kinds: str) -> Iterator[tuple[str, str]]:
    """Give (entity, token) of all steps of some kinds; also of sub-orchestrations, waited for or not."""
    for step in steps:
        match step:
            case ["entity" | "signal" as kind, key, token, _]:
                if kind in kinds:
                    yield key, token
            case ["shout", key, token]:
                if "signal" in kinds:
                    yield key, token
            case ["lock", keys, tokens, _]:
                if "lock" in kinds:
                    yield from zip(keys, tokens, strict=True)
            case ["child" | "detached" | "forsake", inner]:
                yield from tokens_of(inner, *kinds)
            case ["children", programs]:
                for inner in programs:
                    yield from tokens_of(inner, *kinds)
            case _:
                pass


def called(steps: list[Step]) -> Iterator[str]:
    """Give the tokens of all activities that must have run by the end."""
    for step in steps:
        match step:
            case ["call" | "flaky", token, _] | ["pair" | "salvage", token, _, _]:
                yield token
            case ["fan", calls]:
                yield from (token for token, _ in calls)
            case ["child", inner]:
                yield from called(inner)
            case ["children", programs]:
                for inner in programs:
                    yield from called(inner)
            case _:
                pass


def waits(steps: list[Step]) -> int:
    """Return for how many events a program may wait."""
    return sum(step[0] == "event" for step in steps)


def check(steps: list[Step], results: Any) -> None:
    """Hold that this can have come of a program, run once and to its end."""
    assert isinstance(results, list), results
    assert len(results) == len(steps), (steps, results)
    for step, result in zip(steps, results, strict=True):
        assert _is_possible(step, result), f"{step} cannot give {result!r}"


def _is_possible(step: Step, result: Any) -> bool:
    match step:
        case ["call", _, number]:
            return result == 2 * number
        case ["flaky", _, times]:
            return result == times
        case ["broken", token, number]:
            return result in (token, number)
        case ["pair" | "salvage", _, number, _]:
            return result == [2 * number, number]
        case ["fan", calls]:
            return result == [2 * number for _, number in calls]
        case ["race", _, number, _]:
            return result in (2 * number, "late")
        case ["timer", milliseconds]:
            return result >= milliseconds
        case ["event", milliseconds]:
            return isinstance(result, int) or (milliseconds is not None and result == "late")
        case ["entity", _, _, _]:
            return isinstance(result, int) and result > 0
        case ["lock", keys, _, _]:
            return len(result) == len(keys) and all(after == before + 1 for before, after in result)
        case ["uuid"]:
            return len(result) > 36
        case ["child", inner]:
            check(inner, result)
            return True
        case ["children", programs]:
            for inner, each in zip(programs, result, strict=True):
                check(inner, each)
            return True
        case _:
            return result is None
