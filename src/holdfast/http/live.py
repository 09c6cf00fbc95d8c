"""Live updates: the status of an instance as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from holdfast.client.client import Client, hub_of
from holdfast.client.status import InstanceStatus
from holdfast.engine.fleet import FleetTaskHub
from holdfast.engine.task_hub import LocalTaskHub
from holdfast.errors import HoldfastError, InstanceNotFoundError, OverloadedError
from holdfast.http.errors import Endpoint
from holdfast.http.history import one_line
from holdfast.http.operations import EVENT_STREAM
from holdfast.http.parameters import flag, orchestration_id
from holdfast.http.payload import StatusView, status_object

_KEEP_ALIVE_S: Final = 15.0
"""After so long without a change a comment is sent: proxies close what is silent, and a dead client is noticed."""
_GAP_S: Final = 0.05
"""What changes all the time is read so often at most."""
_KEEP_ALIVE: Final = b": nothing new\n\n"


class LiveUpdates:
    """The endpoint that streams, and how many of its streams are open."""

    def __init__(self, client: Client, streams_max: int, keep_alive_s: float = _KEEP_ALIVE_S) -> None:
        hub = hub_of(client)
        assert isinstance(hub, LocalTaskHub | FleetTaskHub), "a host serves what its own engine runs"
        self._client = client
        self._watch = hub.watch
        self._streams_max = streams_max
        self._keep_alive_s = keep_alive_s
        self._streams = 0

    def endpoints(self) -> Mapping[str, Endpoint]:
        return {"events": self.events}

    async def events(self, request: Request) -> Response:
        """Stream the status of an instance until it has ended or is parked."""
        instance_id = orchestration_id(request)
        found = await self._client.get_status(instance_id)
        if found is None:
            raise InstanceNotFoundError(instance_id)
        headers = {"Cache-Control": "no-store"}
        if request.method == "HEAD":
            return Response(headers=headers, media_type=EVENT_STREAM)
        if self._streams >= self._streams_max:
            raise OverloadedError(f"{self._streams} streams are open already. Close one, or raise http_streams_max.")
        view = StatusView(show_input=flag(request, "showInput", True))
        self._streams += 1
        return _Stream(self, self._changes(found, view), headers)

    def closed(self) -> None:
        self._streams -= 1

    async def _changes(self, found: InstanceStatus | None, view: StatusView) -> AsyncIterator[bytes]:
        assert found is not None
        instance_id = found.instance_id
        stopped = asyncio.ensure_future(self._client.wait_until_stopped(instance_id))
        told = b""
        try:
            with self._watch(instance_id) as changed:
                changed.set()  # it may have, since it was read
                while found is not None:
                    text = one_line(status_object(found.state, view, None))
                    if text != told:
                        told = text
                        yield b"event: status\ndata: " + text + b"\n\n"
                    if found.runtime_status.is_terminal or found.parked is not None:
                        return
                    while not await self._woken(changed, stopped):
                        yield _KEEP_ALIVE
                    changed.clear()
                    if stopped.done():
                        if stopped.exception() is not None:
                            return  # it was removed, or the host has stopped
                        # Again: until its state is read, it may have been resumed, or started anew.
                        stopped = asyncio.ensure_future(self._client.wait_until_stopped(instance_id))
                    found = await self._client.get_status(instance_id)
        except HoldfastError as error:
            yield f": {type(error).__name__}\n\n".encode()
        finally:
            if not stopped.cancel() and not stopped.cancelled():
                stopped.exception()  # looked at, so that nobody logs it as forgotten

    async def _woken(self, changed: asyncio.Event, stopped: asyncio.Future[InstanceStatus]) -> bool:
        """Return whether something has happened before it is time for a sign of life."""
        waiting = asyncio.ensure_future(changed.wait())
        try:
            done, _ = await asyncio.wait(
                {waiting, stopped}, timeout=self._keep_alive_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
        if done:
            await asyncio.wait({stopped}, timeout=_GAP_S)
        return bool(done)


class _Stream(StreamingResponse):
    """Gives its place back however it ends, also when not a byte was sent."""

    def __init__(self, owner: LiveUpdates, content: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(content, headers=headers, media_type=EVENT_STREAM)
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._owner.closed()
