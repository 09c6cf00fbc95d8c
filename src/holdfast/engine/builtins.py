"""The activities that come with Holdfast: one sends the requests of `ctx.call_http`, one does pages of bulk jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.durable_http.caller import HttpCaller, TokenSource
from holdfast.durable_http.policy import HttpCallPolicy
from holdfast.model.http_call import DurableHttpRequest, DurableHttpResponse
from holdfast.model.refs import HTTP_ACTIVITY, Activity, AsyncActivity


class Builtins:
    def __init__(self, policy: HttpCallPolicy, token_sources: Mapping[str, TokenSource]) -> None:
        self._caller = HttpCaller(policy, token_sources)

        async def send_request(request: DurableHttpRequest) -> DurableHttpResponse:
            return await self._caller.call(request, None)

        http = AsyncActivity[DurableHttpRequest, DurableHttpResponse](HTTP_ACTIVITY, send_request, "request")
        self._activities: dict[str, Activity[Any, Any]] = {HTTP_ACTIVITY: http}

    def add(self, activity: Activity[Any, Any]) -> None:
        """Add one that needs the task hub, which is made of the engine."""
        self._activities[activity.name] = activity

    def names(self) -> list[str]:
        return list(self._activities)

    def find(self, name: str) -> Activity[Any, Any] | None:
        return self._activities.get(name)

    async def close(self) -> None:
        """Close connections; nothing may be running any more."""
        await self._caller.close()
