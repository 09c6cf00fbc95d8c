"""`holdfast start | status | list | count | history | wait`: what there is, and how it is going."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from itertools import islice
from typing import Annotated, Final, Literal

import typer

from holdfast.cli.connection import DEFAULT_URL, AsJson, Key, Url, with_client
from holdfast.cli.errors import NOT_FOUND, NOT_WELL, CommandError
from holdfast.cli.output import print_fields, print_json, print_table
from holdfast.cli.patience import patiently
from holdfast.cli.selection import Selection, selecting
from holdfast.cli.values import Given, parse_instant, parse_json, parse_tags, parse_timeout
from holdfast.cli.views import LIST_TITLES, event_row, event_view, failure_text, fields_of, list_row, view_of
from holdfast.client.client import Client
from holdfast.client.instances import InstanceQuery
from holdfast.client.status import InstanceStatus
from holdfast.model.options import StartOptions
from holdfast.model.requests import IdPolicy
from holdfast.model.status import OrchestrationStatus

_PAGE: Final = 100

InstanceId = Annotated[str, typer.Argument(metavar="INSTANCE_ID")]
Input = Annotated[
    Given | None,
    typer.Argument(
        parser=parse_json, metavar="INPUT", help="JSON, @file.json, or - for the standard input.", show_default=False
    ),
]
Timeout = Annotated[
    timedelta | None,
    typer.Option(
        "--timeout", parser=parse_timeout, metavar="DURATION", help="At most so long, as 30 (seconds), 30s or 1h30m."
    ),
]

_POLICIES: Final = {
    "replace-ended": IdPolicy(),
    "reject": IdPolicy(replace=()),
    "return": IdPolicy(replace=(), otherwise="return"),
    "replace": IdPolicy(replace=OrchestrationStatus),
}


def start(
    name: Annotated[str, typer.Argument(metavar="ORCHESTRATOR")],
    input: Input = None,
    instance_id: Annotated[str | None, typer.Option("--id", help="The instance id; a new one if not given.")] = None,
    version: Annotated[str | None, typer.Option(help="The version of the orchestrator.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="May be repeated.")] = None,
    start_at: Annotated[
        datetime | None,
        typer.Option(parser=parse_instant, metavar="INSTANT", help="Not before. ISO 8601; local without a zone."),
    ] = None,
    run_timeout: Annotated[
        timedelta | None,
        typer.Option(parser=parse_timeout, metavar="DURATION", help="How long it may take before it fails."),
    ] = None,
    request_key: Annotated[
        str | None, typer.Option(help="Names this request: its repetition starts nothing new.")
    ] = None,
    if_exists: Annotated[
        Literal["replace-ended", "reject", "return", "replace"],
        typer.Option(help="What happens if the id is in use; `replace` terminates what has not ended."),
    ] = "replace-ended",
    wait_for_it: Annotated[bool, typer.Option("--wait", help="Wait for its end, as `holdfast wait` does.")] = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Start an orchestration and print its instance id."""
    options = StartOptions(
        instance_id=instance_id,
        version=version,
        tags=parse_tags(tags or ()),
        start_at=start_at,
        run_timeout=run_timeout,
        id_policy=_POLICIES[if_exists],
        request_key=request_key,
    )

    async def work(client: Client) -> InstanceStatus | str:
        payload = () if input is None else (input.value,)
        handle = await client.start_new(name, *payload, **options)
        return await _waited(client, handle.instance_id, timeout) if wait_for_it else handle.instance_id

    started = with_client(url, key, work)
    if isinstance(started, InstanceStatus):
        _show_end(started, as_json)
    elif as_json:
        print_json({"instance_id": started})
    else:
        typer.echo(started)


def status(instance_id: InstanceId, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show one instance: its status, input, output, and why it failed."""
    found = with_client(url, key, lambda client: _status(client, instance_id))
    if as_json:
        print_json(view_of(found))
    else:
        print_fields(fields_of(found))


async def _status(client: Client, instance_id: str) -> InstanceStatus:
    found = await client.get_status(instance_id)
    if found is None:
        raise CommandError(f"There is no instance {instance_id!r} in this task hub.", NOT_FOUND)
    return found


@selecting()
def list_instances(
    chosen: Selection,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = _PAGE,
    everything: Annotated[bool, typer.Option("--all", help="All of them, however many.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List instances, by their ids."""
    query = chosen.query()
    with_client(url, key, lambda client: show_list(client, query, None if everything else limit, as_json))


async def show_list(client: Client, query: InstanceQuery, limit: int | None, as_json: bool) -> None:
    """Print what a query finds, page by page, so that a long list needs no memory; None is no limit."""
    token: str | None = None
    left, is_first = limit, True
    while left is None or left > 0:
        page = await client.list_instances(
            query, limit=_PAGE if left is None else min(_PAGE, left), continuation_token=token
        )
        if as_json:
            for each in page.instances:
                print_json(view_of(each))
        else:
            print_table(LIST_TITLES, map(list_row, page.instances), with_titles=is_first)
        if is_first and not page.instances:
            typer.echo("There are none.", err=True)
        is_first = False
        token = page.continuation_token
        if token is None:
            return
        left = None if left is None else left - len(page.instances)
    typer.echo(f"There are more than {limit}; --limit N or --all shows them.", err=True)


@selecting()
def count(
    chosen: Selection,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Count instances, by their status."""
    query = chosen.query()
    counts = with_client(url, key, lambda client: client.count_instances(query))
    found = {each.value: counts[each] for each in OrchestrationStatus if counts.get(each)}
    if as_json:
        print_json(found)
    else:
        rows = [*((name, str(number)) for name, number in found.items()), ("All", str(sum(found.values())))]
        print_table(("STATUS", "COUNT"), rows)


def history(
    instance_id: InstanceId,
    last: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the last N events.")] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Show what has happened to an instance in its current execution, event by event."""
    events = with_client(url, key, lambda client: client.get_history(instance_id))
    numbered = list(islice(enumerate(events), max(0, len(events) - (last or len(events))), None))
    if as_json:
        for _, event in numbered:
            print_json(event_view(event))
    else:
        print_table(("#", "TIME", "EVENT", "WHAT"), (event_row(number, event) for number, event in numbered))


def wait(
    instance_id: InstanceId,
    timeout: Timeout = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Wait until an instance ends, and print its result as JSON. Exit code 1: it has none; 6: the time is over."""
    _show_end(with_client(url, key, lambda client: _waited(client, instance_id, timeout)), as_json)


async def _waited(client: Client, instance_id: str, timeout: timedelta | None) -> InstanceStatus:
    return await patiently(client.wait_until_stopped(instance_id, timeout=timeout), f"Waiting for {instance_id}")


def _show_end(ended: InstanceStatus, as_json: bool) -> None:
    """Print a result, or say that there is none and leave."""
    state = ended.state
    is_well = state.runtime_status is OrchestrationStatus.COMPLETED
    if as_json:
        print_json(view_of(ended))
    elif is_well:
        typer.echo("null" if state.output is None else state.output)
    else:
        what = "is parked" if state.parked is not None else f"ended as {state.runtime_status.value}"
        why = failure_text(state.parked or state.failure) or state.output or "no reason was given"
        hint = f" `holdfast explain {state.instance_id}` says what to do." if state.parked is not None else ""
        typer.echo(f"holdfast: Instance {state.instance_id!r} {what}: {why}.{hint}", err=True)
    if not is_well:
        sys.exit(NOT_WELL)
