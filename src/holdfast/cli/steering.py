"""`holdfast raise | cancel | terminate | suspend | resume | rewind | restart | fork | query | update`."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.connection import DEFAULT_URL, AsJson, Key, Url, with_client
from holdfast.cli.instances import Input, InstanceId, Timeout
from holdfast.cli.output import print_json
from holdfast.client.client import Client
from holdfast.client.handle import OrchestrationHandle

Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Kept in the history.")]
Recursive = Annotated[bool, typer.Option("--recursive", help="Its open sub-orchestrations, too.")]


def raise_event(
    instance_id: InstanceId,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The name of the event.")],
    data: Input = None,
    event_key: Annotated[
        str | None, typer.Option(help="Names this event: of several with one key only the first counts.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Send an external event to an orchestration."""
    payload = None if data is None else data.value
    with_client(url, key, lambda client: client.raise_event(instance_id, event, payload, key=event_key))


def cancel(instance_id: InstanceId, reason: Reason = None, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Ask an orchestration to clean up and end."""
    with_client(url, key, lambda client: client.cancel(instance_id, reason))


def terminate(
    instance_id: InstanceId,
    reason: Reason = None,
    recursive: Recursive = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """End an orchestration at once; its code is not asked."""
    with_client(url, key, lambda client: client.terminate(instance_id, reason, recursive=recursive))


def suspend(
    instance_id: InstanceId,
    reason: Reason = None,
    recursive: Recursive = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Let an orchestration pause; what arrives for it waits."""
    with_client(url, key, lambda client: client.suspend(instance_id, reason, recursive=recursive))


def resume(
    instance_id: InstanceId,
    reason: Reason = None,
    recursive: Recursive = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Let a suspended or parked instance go on."""
    with_client(url, key, lambda client: client.resume(instance_id, reason, recursive=recursive))


def rewind(instance_id: InstanceId, reason: Reason = None, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Let a failed orchestration run again what failed, and go on from there."""
    with_client(url, key, lambda client: client.rewind(instance_id, reason))


def restart(
    instance_id: InstanceId,
    same_id: Annotated[bool, typer.Option("--same-id", help="Replace it, instead of under a new id.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Start an orchestration again from its beginning, and print the instance id."""

    async def work(client: Client) -> OrchestrationHandle[object]:
        return await client.restart(instance_id, with_new_id=not same_id)

    _show_id(with_client(url, key, work), as_json)


def fork(
    instance_id: InstanceId,
    new_id: Annotated[str | None, typer.Option("--id", help="The id of the new instance.")] = None,
    episode: Annotated[
        int | None, typer.Option(metavar="N", help="Take over the first N episodes; by default all.")
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Begin a new orchestration with a part of the history of another one, and print its instance id."""

    async def work(client: Client) -> OrchestrationHandle[object]:
        return await client.fork(instance_id, new_instance_id=new_id, episode=episode)

    _show_id(with_client(url, key, work), as_json)


def _show_id(handle: OrchestrationHandle[object], as_json: bool) -> None:
    if as_json:
        print_json({"instance_id": handle.instance_id})
    else:
        typer.echo(handle.instance_id)


def query(
    instance_id: InstanceId,
    name: Annotated[str, typer.Argument(metavar="QUERY")],
    input: Input = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Ask an orchestration something, and print the answer as JSON."""

    async def work(client: Client) -> object:
        return await client.query(instance_id, name, None if input is None else input.value)

    print_json(with_client(url, key, work))


def update(
    instance_id: InstanceId,
    name: Annotated[str, typer.Argument(metavar="UPDATE")],
    input: Input = None,
    update_id: Annotated[
        str | None, typer.Option(help="Names this request: its repetition has no second effect.")
    ] = None,
    timeout: Timeout = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Ask an orchestration to change, and print the answer as JSON."""

    async def work(client: Client) -> object:
        payload = None if input is None else input.value
        return await client.update(instance_id, name, payload, update_id=update_id, timeout=timeout)

    print_json(with_client(url, key, work))
