"""Time, chance, sets, constants, environment: what is deterministic although it looks like what is not."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import random
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, urljoin

import numpy as np

from holdfast import App, OrchestrationContext, when_all

app = App()
logger = logging.getLogger(__name__)

CITIES = ("Tokyo", "Seattle")
PRICES = {"a": 1, "b": 2}
RATES: Final = MappingProxyType({"a": 1})
KINDS = frozenset({"a", "b"})
HOME = os.environ.get("HOME", "")
STARTED = datetime.now(UTC)
CONFIG = json.loads(os.environ.get("CONFIG", "{}"))
plain = 3


@dataclass(frozen=True)
class Settings:
    limit: int = 10
    tags: frozenset[str] = frozenset()
    made: datetime = field(default_factory=lambda: datetime.now(UTC))


SETTINGS = Settings()


@app.activity
async def read(name: str) -> str:
    await asyncio.sleep(0.1)
    return Path(name).read_text() + os.environ["HOME"] + str(time.time()) + str(uuid.uuid4())


@app.orchestrator
async def clock(ctx: OrchestrationContext, since: datetime) -> str:
    now = ctx.current_utc_datetime
    due = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(days=1)
    parsed = datetime.fromisoformat("2030-01-01T00:00:00+00:00")
    shown = time.strftime("%Y", time.gmtime(0)) + time.ctime(0)
    if now - since > timedelta(days=3) or now.date() == date(2030, 1, 1):
        await ctx.create_timer(due)
    await ctx.create_timer(timedelta(seconds=1))
    return f"{now:%Y-%m-%d} {now.today if False else ''} {parsed.isoformat()} {shown} {now.time()}"


@app.orchestrator
async def chance(ctx: OrchestrationContext, items: list[str]) -> object:
    rng = ctx.random
    seeded = random.Random(ctx.instance_id)
    drawn = np.random.default_rng(7).random()
    named = uuid.uuid5(uuid.NAMESPACE_URL, ctx.instance_id)
    digest = hashlib.sha256(str(ctx.new_uuid()).encode()).hexdigest()
    rng.shuffle(items)
    return [rng.choice(items), seeded.random(), ctx.random.randrange(3), drawn, named, digest, pick(rng, items)]


def pick(rng: random.Random, items: list[str]) -> str:
    return rng.choice(items)


@app.orchestrator
async def sets(ctx: OrchestrationContext, names: list[str], kinds: set[str]) -> object:
    unique = set(names)
    for name in sorted(unique | kinds):
        await ctx.call_activity(read, name)
    unique = sorted(unique)
    for name in unique:
        await ctx.call_activity(read, name)
    await when_all(ctx.call_activity(read, name) for name in sorted({*names, "x"}))
    is_known = "a" in kinds and any(each.isupper() for each in kinds)
    total = sum(len(each) for each in KINDS) + len(kinds) + max(kinds, key=len).count("a")
    listed = sorted(list(kinds)) + sorted(each.upper() for each in kinds)
    upper = {each.upper() for each in kinds}
    return is_known, total, listed, kinds == upper, Counter(kinds), min(kinds), frozenset(kinds)


@app.orchestrator
async def dicts(ctx: OrchestrationContext, counts: dict[str, int]) -> dict[str, int]:
    found: defaultdict[str, int] = defaultdict(int)
    for name, count in counts.items():
        found[name] += count
    for name in counts.keys():
        found[name] += PRICES[name] + RATES.get(name, 0)
    for name in CITIES:
        found[name] = len(await ctx.call_activity(read, name))
    found |= {"x": 1}
    return dict(found)


@app.orchestrator
async def constants(ctx: OrchestrationContext) -> object:
    tags = sorted(SETTINGS.tags)
    limit = SETTINGS.limit + plain + CONFIG.get("limit", 0)
    fresh = Settings(limit=limit, made=ctx.current_utc_datetime)
    return tags, fresh.limit, HOME, STARTED < ctx.current_utc_datetime, math.pi, logging.INFO


@app.orchestrator
async def texts(ctx: OrchestrationContext, name: str) -> str:
    place = PurePath("/data") / name
    url = urljoin("http://example.com/", quote(name))
    joined = os.path.join("a", name) + os.sep + json.dumps({"a": 1}, sort_keys=True)
    path = Path("/data", name).with_suffix(".txt")
    return f"{place.name} {url} {joined} {path.parent.name} {reduce(lambda a, b: a + b, name, '')}"


@app.orchestrator
async def logs(ctx: OrchestrationContext, name: str) -> None:
    log = ctx.create_replay_safe_logger(logger)
    log.info("begins with %s", name)
    ctx.create_replay_safe_logger(logging.getLogger("x")).warning("so")
    if not ctx.is_replaying:
        logger.info("once")
        print("once")
    if name and not ctx.is_replaying:
        logging.info("once")
    await ctx.call_activity(read, name)


@app.orchestrator
async def shadows(ctx: OrchestrationContext, time: datetime, random: list[int]) -> object:
    open = time.time()
    hash = random.pop()
    id = [print for print in random]

    def uuid4() -> int:
        return hash

    return open, hash, id, uuid4(), [uuid.time for uuid in ()]


@app.orchestrator
async def errors(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_activity(read, "x")
    except (asyncio.TimeoutError, asyncio.CancelledError):
        raise asyncio.TimeoutError("late") from None
    return "fine"
