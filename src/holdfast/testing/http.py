"""What `ctx.call_http` asks for, under test: an activity like any other, that a test has to answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from holdfast.durable_http.policy import HttpCallPolicy
from holdfast.engine.builtins import Builtins
from holdfast.errors import DurableHttpError
from holdfast.model.http_call import DurableHttpRequest, DurableHttpResponse
from holdfast.model.refs import HTTP_ACTIVITY, Activity, AsyncActivity


async def _refuse(request: DurableHttpRequest) -> DurableHttpResponse:
    raise DurableHttpError("There is no network in a simulation. Answer what is sent: sim.replace_http(fake).")


HTTP: Final = AsyncActivity[DurableHttpRequest, DurableHttpResponse](HTTP_ACTIVITY, _refuse, "request")


class SimulatedBuiltins(Builtins):
    """The activities that come with Holdfast, without a network."""

    def __init__(self, change: Callable[[Activity[Any, Any]], Activity[Any, Any]]) -> None:
        super().__init__(HttpCallPolicy(), {})
        self._change = change
        self.add(HTTP)

    def add(self, activity: Activity[Any, Any]) -> None:
        super().add(self._change(activity))
