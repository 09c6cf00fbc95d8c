import os
import platform
import socket
import sys
from os import environ, getenv
from pathlib import Path

from holdfast import App, OrchestrationContext

app = App()


@app.orchestrator
async def environment(ctx: OrchestrationContext) -> object:
    a = os.environ["HOME"]  #! HF104
    b = environ.get("HOME")  #! HF104
    c = getenv("HOME")  #! HF104
    d = platform.node()  #! HF104
    e = socket.gethostname()  #! HF104
    f = sys.argv[1:]  #! HF104
    g = os.getpid()  #! HF104
    os.environ["SEEN"] = "yes"  #! HF104
    return a, b, c, d, e, f, g, Path.home()  #! HF104
