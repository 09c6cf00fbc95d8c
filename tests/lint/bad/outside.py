import asyncio
import logging
import queue
import shutil
import sqlite3
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from os import listdir
from pathlib import Path
from pprint import pprint

import boto3
import httpx
import requests
import structlog

from holdfast import App, Client, OrchestrationContext, activity_context

app = App()
logger = logging.getLogger(__name__)
log = structlog.get_logger()
session = requests.Session()
ROOT = Path("/data")


@app.orchestrator
async def waits(ctx: OrchestrationContext) -> None:
    time.sleep(1)  #! HF201
    await asyncio.sleep(1)  #! HF201


@app.orchestrator
async def files(ctx: OrchestrationContext, given: Path) -> object:
    with open("x") as file:  #! HF202
        text = file.read()
    text += (ROOT / "a.txt").read_text()  #! HF202
    shutil.copy("a", "b")  #! HF202
    if given.parent.exists():  #! HF202
        return sorted(listdir("."))  #! HF202
    return text + input()  #! HF202


class Shop:
    def __init__(self) -> None:
        self.http = httpx.AsyncClient()  #! HF203

    async def order(self) -> None:
        await self.http.post("http://x")  #! HF203


@app.orchestrator
async def network(ctx: OrchestrationContext) -> None:
    requests.get("http://x").json()  #! HF203
    async with httpx.AsyncClient() as client:  #! HF203
        await client.get("http://x")  #! HF203
    session.get("http://x")  #! HF203
    urllib.request.urlopen("http://x")  #! HF203
    HTTPConnection("x")  #! HF203
    with sqlite3.connect("x") as db:  #! HF203
        db.execute("select 1")  #! HF203
    boto3.client("s3").list_buckets()  #! HF203
    subprocess.run(["ls"])  #! HF203
    await Shop().order()


@app.orchestrator
async def side_by_side(ctx: OrchestrationContext) -> None:
    threading.Thread(target=print).start()  #! HF204 HF208
    with ThreadPoolExecutor() as pool:  #! HF204
        pool.submit(len, "x")  #! HF204
    queue.Queue()  #! HF204
    await asyncio.gather()  #! HF205
    async with asyncio.timeout(3):  #! HF205
        task = asyncio.create_task(side_by_side(ctx))  #! HF205
    await task
    async with asyncio.TaskGroup() as group:  #! HF205
        group.create_task(side_by_side(ctx))  #! HF205
    asyncio.get_running_loop().run_in_executor(None, len, "x")  #! HF205


@app.orchestrator
async def tells(ctx: OrchestrationContext) -> None:
    logger.info("again")  #! HF207
    logging.warning("again")  #! HF207
    log.info("again")  #! HF207
    print("again")  #! HF208
    pprint("again")  #! HF208


@app.orchestrator
async def clients(ctx: OrchestrationContext, client: Client) -> None:
    await client.start_new("x")  #! HF209
    async with app.host("memory://") as host:  #! HF209
        await host.client.start_new("x")  #! HF209
    activity_context()  #! HF209
