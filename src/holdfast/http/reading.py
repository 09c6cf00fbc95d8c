"""The history of an instance: by pages, or as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from holdfast.client.client import Client, hub_of
from holdfast.http.errors import BadRequestError, Endpoint, HistoryChangedError, json_response
from holdfast.http.history import event_rows, one_line
from holdfast.http.operations import NDJSON, TOKEN_HEADER
from holdfast.http.parameters import flag, orchestration_id, top

_LINES = 500


class Histories:
    """The endpoint that reads histories."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._hub = hub_of(client)

    def endpoints(self) -> Mapping[str, Endpoint]:
        return {"history": self.history}

    async def history(self, request: Request) -> Response:
        """Return a page of episodes, or with `Accept: application/x-ndjson` everything."""
        instance_id = orchestration_id(request)
        limit, (execution_id, first) = top(request), _token(request)
        rows = partial(
            event_rows,
            show_input=flag(request, "showInput", True),
            show_output=flag(request, "showHistoryOutput", True),
        )
        if NDJSON in request.headers.get("accept", ""):
            return StreamingResponse(_lines(rows(await self._client.get_history(instance_id))), media_type=NDJSON)
        # One more than is shown tells whether there are more.
        found = await self._hub.export_history(instance_id, first=first, limit=limit + 1)
        if execution_id not in ("", found.execution_id):
            raise HistoryChangedError(instance_id)
        is_last = len(found.episodes) <= limit
        headers = {} if is_last else {TOKEN_HEADER: f"{found.execution_id}:{first + limit}"}
        return json_response(rows(list(chain.from_iterable(found.episodes[:limit]))), headers=headers)


def _token(request: Request) -> tuple[str, int]:
    """Read which execution a page is of, and its first episode."""
    text = request.headers.get(TOKEN_HEADER, "")
    if text in ("", "null"):
        return "", 0
    execution_id, _, episode = text.rpartition(":")
    if not execution_id or not (episode.isascii() and episode.isdigit()) or len(episode) > 9:
        raise BadRequestError(f"{TOKEN_HEADER} is {text[:40]!r}; it must be what an earlier answer had there")
    return execution_id, int(episode)


async def _lines(rows: Sequence[dict[str, object]]) -> AsyncIterator[bytes]:
    waiting = iter(rows)
    while some := list(islice(waiting, _LINES)):
        yield b"".join(one_line(row) + b"\n" for row in some)
