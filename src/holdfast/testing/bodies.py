"""What runs when an activity is called in a simulation: its own function, or a fake for it; once, or twice."""

from __future__ import annotations

import contextlib
import copy
import inspect
import typing
from collections.abc import Callable
from typing import Any

from holdfast.errors import ConfigurationError
from holdfast.model.refs import Activity

_Key = tuple[str, str | None]


class ActivityBodies:
    """Runs the bodies of activities."""

    def __init__(self, *, twice: bool) -> None:
        self._twice = twice
        self._fakes: dict[_Key, Callable[..., Any]] = {}

    def replace(self, activity: Activity[Any, Any], fake: Callable[..., Any]) -> None:
        """Let something else run for an activity from now on.

        Raises:
            ConfigurationError: if it cannot be called as the activity is.
        """
        _check_fake(activity, fake)
        self._fakes[_key(activity)] = fake

    async def run(self, activity: Activity[Any, Any], arguments: tuple[Any, ...]) -> Any:
        """Return what an activity returns, or raise what it raises."""
        if self._twice:
            # As if the process had died before the outcome was stored, whatever that was.
            with contextlib.suppress(Exception):
                await self._run_once(activity, copy.deepcopy(arguments))
        return await self._run_once(activity, arguments)

    async def _run_once(self, activity: Activity[Any, Any], arguments: tuple[Any, ...]) -> Any:
        fake = self._fakes.get(_key(activity))
        try:
            result = (fake or activity.function)(*arguments)
            may_wait = activity.runs_in == "loop" or fake is not None
            return await result if may_wait and inspect.isawaitable(result) else result
        except NotImplementedError as error:
            if error.args:
                raise
            raise NotImplementedError(
                f"Activity {activity.name!r} did something that a simulation cannot, such as to open a connection or "
                "to start a process. Replace it: sim.replace(activity, fake)."
            ) from error


def _key(activity: Activity[Any, Any]) -> _Key:
    return activity.name.casefold(), activity.version


def _check_fake(activity: Activity[Any, Any], fake: Callable[..., Any]) -> None:
    arguments = [None] if activity.has_input else []
    try:
        signature = inspect.signature(fake)
        parameters = list(signature.bind(*arguments).arguments)
    except TypeError as error:
        wanted = "one input" if activity.has_input else "no input"
        raise ConfigurationError(f"The fake for {activity!r} must take {wanted}, as that does: {error}.") from None
    hints = typing.get_type_hints(fake) if inspect.isfunction(fake) else {}
    annotated = hints.get(parameters[0], activity.input_type) if parameters else activity.input_type
    if activity.has_input and Any not in (annotated, activity.input_type) and annotated != activity.input_type:
        raise ConfigurationError(
            f"The fake for {activity!r} takes {annotated!r}; the input of the activity is {activity.input_type!r}."
        )
