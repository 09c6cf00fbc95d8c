"""The history of an instance: by pages, or as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import islice

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from holdfast.client.client import Client
from holdfast.http.errors import BadRequestError, Endpoint, HistoryChangedError, json_response
from holdfast.http.history import event_rows, one_line
from holdfast.http.operations import NDJSON, TOKEN_HEADER
from holdfast.http.parameters import flag, orchestration_id, top
from holdfast.model.history import ExecutionStarted, HistoryEvent, OrchestratorStarted

_LINES = 500


class Histories:
    """The endpoint that reads histories."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def endpoints(self) -> Mapping[str, Endpoint]:
        return {"history": self.history}

    async def history(self, request: Request) -> Response:
        """Return a page of episodes, or with `Accept: application/x-ndjson` everything."""
        instance_id = orchestration_id(request)
        limit, (execution_id, first) = top(request), _token(request)
        events = await self._client.get_history(instance_id)
        show_input, show_output = flag(request, "showInput", True), flag(request, "showHistoryOutput", True)
        if NDJSON in request.headers.get("accept", ""):
            lines = _lines(event_rows(events, show_input=show_input, show_output=show_output))
            return StreamingResponse(lines, media_type=NDJSON)
        current = next((event.execution_id for event in events if isinstance(event, ExecutionStarted)), "")
        if execution_id not in ("", current):
            raise HistoryChangedError(instance_id)
        page, is_last = _episodes(events, first, limit)
        headers = {} if is_last else {TOKEN_HEADER: f"{current}:{first + limit}"}
        return json_response(list(event_rows(page, show_input=show_input, show_output=show_output)), headers=headers)


def _token(request: Request) -> tuple[str, int]:
    """Read which execution a page is of, and its first episode."""
    text = request.headers.get(TOKEN_HEADER, "")
    if text in ("", "null"):
        return "", 0
    execution_id, _, episode = text.rpartition(":")
    if not execution_id or not (episode.isascii() and episode.isdigit()) or len(episode) > 9:
        raise BadRequestError(f"{TOKEN_HEADER} is {text[:40]!r}; it must be what an earlier answer had there")
    return execution_id, int(episode)


def _episodes(events: Sequence[HistoryEvent], first: int, limit: int) -> tuple[Sequence[HistoryEvent], bool]:
    """Return the events of some episodes, and whether they are the last ones."""
    begins = [index for index, event in enumerate(events) if isinstance(event, OrchestratorStarted)]
    bounds = [0, *begins[1:], len(events)]  # what stands before the first episode belongs to it
    episodes = len(bounds) - 1
    start, end = min(first, episodes), min(first + limit, episodes)
    return events[bounds[start] : bounds[end]], end == episodes


async def _lines(rows: Sequence[dict[str, object]]) -> AsyncIterator[bytes]:
    waiting = iter(rows)
    while some := list(islice(waiting, _LINES)):
        yield b"".join(one_line(row) + b"\n" for row in some)
