"""Queries and updates: asking a live orchestration something, once it is in memory and stands where the store says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from holdfast.engine.changes import confirm
from holdfast.engine.engine import Engine
from holdfast.engine.node import Node
from holdfast.engine.residents import Resident
from holdfast.errors import (
    HoldfastError,
    InstanceNotFoundError,
    InstanceNotRunningError,
    QueryFailedError,
    UpdateRejectedError,
)
from holdfast.model.history import UpdateRequested
from holdfast.replay.orchestration import Execution

T = TypeVar("T")


async def query(engine: Engine, instance_id: str, name: str, input: str | None) -> str:
    """Return what a query handler answers, as JSON, once everything that it saw is durable.

    Raises:
        InstanceNotFoundError, InstanceNotRunningError, QueryFailedError.
    """

    def ask(execution: Execution) -> str:
        try:
            return execution.handlers.answer_query(name, input)
        except Exception as error:
            raise QueryFailedError(
                instance_id, f"Query {name!r} to instance {instance_id!r} failed: {error}"
            ) from error

    answer = await _with_execution(engine, instance_id, ask)
    if answer is None:
        raise QueryFailedError(
            instance_id, f"Instance {instance_id!r} has not begun to run, so it cannot answer query {name!r} yet."
        )
    return answer


async def check_update(engine: Engine, instance_id: str, request: UpdateRequested) -> None:
    """Let the validator of an update refuse it before anything is stored; one that has not begun decides later.

    Raises:
        InstanceNotFoundError, InstanceNotRunningError, UpdateRejectedError.
    """

    def check(execution: Execution) -> None:
        if execution.handlers.is_known(request.update_id):
            return
        try:
            execution.handlers.validate_update(request.name, request.input)
        except Exception as error:
            raise UpdateRejectedError(
                instance_id, f"Update {request.name!r} of instance {instance_id!r} was rejected: {error}"
            ) from error

    await _with_execution(engine, instance_id, check)


async def _with_execution(engine: Engine, instance_id: str, use: Callable[[Execution], T]) -> T | None:
    """Use the live execution of an instance, which is replayed if it is not in memory; None if it has not begun.

    The result, or the error that `use` raises, is told once everything that it may tell of is durable.
    """
    while True:
        node = engine.node
        resident = await _resident(node, instance_id)
        instance = resident.instance
        if instance.is_terminal:
            await confirm(node, instance.lsn)
            raise InstanceNotRunningError(instance_id, instance.status.value, "ask")
        if instance.episodes == 0:
            await confirm(node, instance.lsn)
            return None
        seen = (instance.execution_id, instance.episodes)
        execution = resident.execution
        if execution is None or (execution.execution_id, execution.episodes) != seen:
            await node.journal.durable(instance.lsn)
            history = await engine.store.load_history(instance_id, instance.execution_id)
            is_other = node.residents.get(instance_id) is not resident or engine.node is not node
            if is_other or (instance.execution_id, instance.episodes) != seen or instance.is_working:
                await asyncio.sleep(0)
                continue
            execution = _revive(engine, resident, history)
            node.residents.touch(resident)
        lsn = instance.lsn
        try:
            result = use(execution)
        except HoldfastError:
            await confirm(node, lsn)
            raise
        finally:
            node.residents.shrink(node.journal.durable_lsn)
        await confirm(node, lsn)
        return result


def _revive(engine: Engine, resident: Resident, history: list[str]) -> Execution:
    instance = resident.instance
    try:
        execution = engine.worker.revive(instance, history)
    except HoldfastError as error:
        raise QueryFailedError(
            instance.instance_id, f"Instance {instance.instance_id!r} cannot be brought into memory: {error}"
        ) from error
    if resident.execution is not None:
        resident.execution.unload()
    resident.execution = execution
    return execution


async def _resident(node: Node, instance_id: str) -> Resident:
    found: asyncio.Future[Resident | None] = asyncio.get_running_loop().create_future()

    def arrived(resident: Resident | None) -> None:
        if not found.done():
            found.set_result(resident)

    def refused(error: HoldfastError) -> None:
        if not found.done():
            found.set_exception(error)

    node.context.run(node.guarded, instance_id, lambda: node.loader.with_resident(instance_id, arrived, refused))
    resident = await found
    if resident is None:
        await confirm(node, node.loader.gone_at(instance_id))
        raise InstanceNotFoundError(instance_id)
    return resident
