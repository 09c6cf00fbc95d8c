import time

from holdfast import App, OrchestrationContext

app = App()


@app.orchestrator
async def silenced(ctx: OrchestrationContext) -> None:
    a = time.time()  # noqa
    b = time.time()  # noqa: HF101
    c = time.time()  # noqa: HF1 - a whole group
    d = time.time()  # noqa: E501, HF101
    e = time.time()  # noqa: E501  #! HF101
    f = time.time()  # NOQA:HF102  #! HF101
