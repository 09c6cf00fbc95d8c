"""`holdfast bulk`: one action for all instances that match, as a job that survives crashes and restarts."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final

import typer

from holdfast.cli.confirm import confirm
from holdfast.cli.connection import DEFAULT_URL, AsJson, Key, Url, with_client
from holdfast.cli.output import Progress, print_json
from holdfast.cli.selection import Selection, selecting
from holdfast.client.client import Client
from holdfast.client.handle import OrchestrationHandle
from holdfast.client.instances import InstanceQuery
from holdfast.errors import WaitTimeoutError
from holdfast.model.bulk import BulkProgress

_LOOK: Final = timedelta(seconds=1)


class Action(StrEnum):
    """What a bulk job does to each instance."""

    TERMINATE = "terminate"
    CANCEL = "cancel"
    SUSPEND = "suspend"
    RESUME = "resume"
    REWIND = "rewind"
    PURGE = "purge"


@selecting()
def bulk(
    chosen: Selection,
    action: Annotated[Action, typer.Argument(metavar="ACTION", help=f"One of {', '.join(Action)}.")],
    everything: Annotated[bool, typer.Option("--all", help="All instances, without a filter.")] = False,
    reason: Annotated[str | None, typer.Option(help="Told to each of them.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Print the id of the job, and leave it to itself.")
    ] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Do the same to all instances that match, as a durable job: it goes on without this command."""
    query = chosen.query()
    if chosen.is_empty is not everything:
        raise typer.BadParameter("Give filters such as --name X, or --all; not both.")

    async def work(client: Client) -> tuple[str, BulkProgress | None]:
        if not yes:
            await _ask(client, action, query)
        job = await client.start_bulk(action.value, query, reason)
        return job.instance_id, None if no_wait else await _watched(job)

    job_id, progress = with_client(url, key, work)
    if as_json:
        print_json({"job": job_id, "progress": progress})
    elif progress is None:
        typer.echo(job_id)
    else:
        refused = f", {progress.refused} could not take it in any more" if progress.refused else ""
        typer.echo(f"{action.value}: {progress.done} instance{'' if progress.done == 1 else 's'}{refused}.")


async def _ask(client: Client, action: Action, query: InstanceQuery) -> None:
    counts = await client.count_instances(query)
    found = ", ".join(f"{number} {status.value}" for status, number in counts.items())
    confirm(f"{action.value} all that can be among: {found or 'nothing yet'}?")


async def _watched(job: OrchestrationHandle[BulkProgress]) -> BulkProgress:
    """Wait for a job, and tell how far it is."""
    shown = Progress()
    try:
        while True:
            try:
                return await job.wait_for_completion(timeout=_LOOK)
            except WaitTimeoutError:
                status = await job.get_status()
                done = status.custom_status if status and status.custom_status else {"done": 0}
                shown.tell(f"{job.instance_id}: {done['done']} done")
    finally:
        shown.done()
