"""All workloads by name, each with its limit of time: one that hangs must not hide the others."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from benchmarks import dormant, entities, growing, http_starts, idle, imports, memory, purging, recovery, workloads
from benchmarks.results import Machine, Result, Series
from benchmarks.stores import FLEET, POSTGRES, SQLITE

R = TypeVar("R")


class Measure(Protocol[R]):
    def __call__(self, url: str, machine: Machine, *, quick: bool) -> Coroutine[Any, Any, list[R]]: ...


class Workload(msgspec.Struct, Generic[R], frozen=True):
    measure: Measure[R]
    limit_s: float = 60.0
    """Several times what it takes."""
    only_on: tuple[str, ...] = ()
    """The stores that it needs, or that it is about; all if there are none."""


WORKLOADS: Final[Mapping[str, Workload[Result]]] = MappingProxyType(
    {
        "W1": Workload(workloads.chained_latency),
        "W2": Workload(workloads.chained_throughput),
        "W3": Workload(workloads.fan_outs),
        "W4": Workload(workloads.chain_of_thousand),
        "W5": Workload(workloads.external_events),
        "W6": Workload(entities.entity_signals),
        "W7": Workload(workloads.timer_lateness),
        "W8": Workload(recovery.crash_recovery),
        "BANK": Workload(entities.bank),
        "HTTP": Workload(http_starts.http_starts, limit_s=120, only_on=(SQLITE, POSTGRES)),
        "MEM": Workload(memory.waiting_instances, limit_s=120, only_on=(SQLITE, POSTGRES)),
        "DORMANT": Workload(dormant.dormant_instances, limit_s=240, only_on=(SQLITE,)),
        "IMPORT": Workload(imports.import_times, limit_s=240, only_on=(SQLITE,)),
        "PURGE": Workload(purging.purge_beside_work, limit_s=120, only_on=(SQLITE,)),
        "IDLE": Workload(idle.idle_queries, only_on=(POSTGRES, FLEET)),
    }
)

GROWTH: Final[Mapping[str, Workload[Series]]] = MappingProxyType(
    {
        "STORE": Workload(growing.full_store, limit_s=600, only_on=(SQLITE,)),
        "LENGTH": Workload(growing.long_chains, limit_s=300),
        "REPLAY": Workload(growing.long_histories, limit_s=300, only_on=(SQLITE,)),
    }
)
