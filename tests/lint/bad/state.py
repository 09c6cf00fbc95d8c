import itertools
from dataclasses import dataclass, field

import settings_of_state as settings
from holdfast import App, OrchestrationContext
from settings_of_state import RATES

app = App()
count = 0
seen: list[str] = []
CACHE: dict[str, int] = {}
NUMBERS = itertools.count()
names = ["a", "b"]
limit = 10


@dataclass
class Probe:
    times: list[int] = field(default_factory=list)

    def note(self) -> None:
        self.times.append(1)


probe = Probe()


def set_limit(value: int) -> None:
    global limit
    limit = value


@app.activity
async def remember(name: str) -> None:
    CACHE[name] = 1


class Kinds:
    known = 0


@app.orchestrator
async def state(ctx: OrchestrationContext, extra: list[str] = []) -> object:  #! HF109
    global count
    count += 1  #! HF108
    seen.append(ctx.instance_id)  #! HF108
    number = next(NUMBERS)  #! HF108
    probe.times.append(number)  #! HF108
    probe.note()  #! HF108
    Kinds.known = 2  #! HF108
    RATES["x"] = 1  #! HF108
    settings.RATES.pop("x")  #! HF108
    if "x" in CACHE and number < limit:  #! HF107 HF107
        return names  #! HF403
    return extra, seen, settings.LIMITS  #! HF107


def make(app: App) -> None:
    calls = 0
    told: list[str] = []

    @app.orchestrator
    async def inner(ctx: OrchestrationContext, *, tags: dict[str, str] = dict()) -> dict[str, str]:  #! HF109
        nonlocal calls
        calls += 1  #! HF108
        told.append("x")  #! HF108
        await ctx.create_timer(ctx.current_utc_datetime)
        return tags
