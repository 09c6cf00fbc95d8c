from some_library import Stream, fetch

from holdfast import App, OrchestrationContext, when_all

app = App()
stream = Stream()


@app.activity(name="ship-it")
async def ship(item: str) -> str:
    return item


@app.activity
def pack(item: str) -> str:
    return item


async def both(ctx: OrchestrationContext, item: str) -> None:
    await ctx.call_activity(ship, item)


@app.orchestrator
async def foreign(ctx: OrchestrationContext) -> None:
    await fetch("x")  #! HF206
    async with stream.open():  #! HF206
        pass
    async for _ in stream:  #! HF206
        pass
    await [ctx.call_activity(ship, "a")]  #! HF206


@app.orchestrator
def foreign_generator(ctx: OrchestrationContext):
    yield [ctx.call_activity(ship, "a")]  #! HF206
    yield from ctx.call_activity(ship, "a")
    both_of(ctx)  #! HF303


def both_of(ctx):
    yield ctx.call_activity(ship, "a")


@app.orchestrator
async def forgets(ctx: OrchestrationContext) -> None:
    ctx.call_activity(ship, "a")  #! HF301
    ctx.create_timer(ctx.current_utc_datetime)  #! HF301
    when_all(ctx.call_activity(ship, "a"))  #! HF301
    [ctx.call_activity(ship, item) for item in "abc"]  #! HF301
    ctx.call_activity(ship, "a") if ctx.is_locked else None  #! HF301
    lost = ctx.call_activity(ship, "b")  #! HF302
    both(ctx, "c")  #! HF303
    await ship("d")  #! HF304
    pack("e")  #! HF304


@app.orchestrator
async def replays(ctx: OrchestrationContext) -> None:
    if not ctx.is_replaying:
        await ctx.call_activity(ship, "a")  #! HF110
    if ctx.is_replaying:
        return
    else:
        ctx.continue_as_new("x", "y")  #! HF110 HF307


@app.orchestrator
async def swallows(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity(ship, "a", "b")  #! HF307
    except:  #! HF305
        pass
    try:
        await ctx.call_activity(ship, "a")
    except (ValueError, BaseException):  #! HF305
        pass
    try:
        await ctx.call_activity(ship, "a")
    finally:
        return  #! HF305


@app.orchestrator
async def goes_on(ctx: OrchestrationContext, left: int) -> None:
    if left:
        ctx.continue_as_new(left - 1)
        left = 3
        await ctx.call_activity(ship, "a")  #! HF306
    while True:  #! HF401
        for _ in range(3):
            break
        await ctx.call_activity("nothing", "a")  #! HF402
        await ctx.call_sub_orchestrator("nobody")  #! HF402
        await ctx.call_activity("SHIP-IT", "a")


@app.orchestrator
async def combines(ctx: OrchestrationContext) -> None:
    await when_all(both(ctx, "a"), ctx.call_activity(ship, "b"))  #! HF206
    await when_all([both(ctx, item) for item in "ab"])  #! HF206


@app.orchestrator
def yields(ctx: OrchestrationContext):
    yield both_of(ctx)  #! HF303
    yield from both_of(ctx)
