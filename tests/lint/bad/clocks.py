import datetime as dt
import time
from dataclasses import dataclass, field
from datetime import date, datetime
from datetime import datetime as moment
from time import monotonic, perf_counter as tick
from uuid import uuid4

from holdfast import App, OrchestrationContext

app = App()
now = datetime.now


@app.orchestrator
async def clocks(ctx: OrchestrationContext, started: datetime = datetime.now()) -> float:  #! HF101
    a = datetime.now()  #! HF101
    b = dt.datetime.utcnow()  #! HF101
    c = moment.today()  #! HF101
    d = date.today()  #! HF101
    e = time.time() + monotonic()  #! HF101 HF101
    f = now().isoformat()  #! HF101
    g = time.localtime()  #! HF101
    h = time.strftime("%Y")  #! HF101
    clock = tick
    if (passed := clock()) > 3:  #! HF101
        return passed
    return e


@app.orchestrator(name="another")
def as_generator(context):
    yield context.create_timer(datetime.now())  #! HF101
    stamps = sorted([1, 2], key=time.time_ns)  #! HF101
    return f"{datetime.now():%H}", stamps  #! HF101


@app.orchestrator
async def handlers(ctx: OrchestrationContext) -> None:
    def query() -> str:
        return str(datetime.now())  #! HF101

    async def update(_: str) -> float:
        return time.time()  #! HF101

    ctx.set_query_handler("q", query)
    ctx.set_update_handler("u", update, validator=lambda _: time.time())  #! HF101
    await ctx.wait_for_external_event("done")


@dataclass
class Stamp:
    name: str
    made: datetime = field(default_factory=datetime.now)
    key: str = field(default_factory=lambda: str(uuid4()))
    tags: list[str] = field(default_factory=list)


@app.orchestrator
async def defaults(ctx: OrchestrationContext) -> object:
    clock = getattr(time, "time")
    clock()  #! HF101
    full = Stamp("a", ctx.current_utc_datetime, key="b")
    return full, Stamp("a")  #! HF101 HF103
