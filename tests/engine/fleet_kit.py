"""Several hosts of one hub in this process: engines on a schema that they share."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

from engine_kit import Run, until

from holdfast import App, Client, HostConfig
from holdfast.codec.converter import JsonConverter
from holdfast.engine.engine import Engine
from holdfast.engine.fleet import FleetTaskHub, task_hub
from holdfast.engine.task_hub import LocalTaskHub
from holdfast.model.ids import partition_of
from holdfast.storage.open_store import open_store

CONFIG = HostConfig(drain_s=0.2)
PARTITIONS = 12


@asynccontextmanager
async def joined(app: App, url: str, config: HostConfig = CONFIG) -> AsyncGenerator[Run]:
    """Run one more host on a hub."""
    store = open_store(url)
    converter = JsonConverter(payload_bytes_max=config.limits.payload_bytes_max)
    engine = Engine(app.registry, store, converter, config)
    hub: LocalTaskHub | FleetTaskHub = task_hub(engine)
    await engine.start()
    try:
        yield Run(engine, Client(hub, converter, config.limits), store)
    finally:
        await engine.stop()


def owned_by(run: Run) -> frozenset[int]:
    """Return the partitions that a host owns; none while it begins again."""
    return frozenset(run.engine.node.fence.epochs) if run.engine.is_ready else frozenset()


async def shared_by(*runs: Run) -> list[frozenset[int]]:
    """Wait until some hosts have fair shares of all partitions; return them."""

    def is_fair() -> bool:
        shares = [owned_by(run) for run in runs]
        fair = -(-PARTITIONS // len(runs))
        return sum(map(len, shares)) == PARTITIONS and max(map(len, shares)) <= fair

    await until(is_fair)
    return [owned_by(run) for run in runs]


def ids_of(run: Run, prefix: str = "i") -> Iterator[str]:
    """Give ids of instances that a host owns now."""
    return (
        instance_id
        for instance_id in (f"{prefix}{number}" for number in itertools.count())
        if partition_of(instance_id, PARTITIONS) in owned_by(run)
    )
