"""Which instances: the filters that `list`, `count`, `purge` and `parked` share."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from datetime import datetime
from inspect import Parameter
from typing import Annotated, Any

import typer

from holdfast.cli.values import Given, parse_instant, parse_json, parse_tags
from holdfast.client.instances import ANY, InstanceQuery
from holdfast.model.status import OrchestrationStatus

_PANEL = "Which instances"
_INSTANT = "ISO 8601; local without a zone."

Name = Annotated[
    str | None, typer.Option("--name", metavar="ORCHESTRATOR", help="Of this orchestrator.", rich_help_panel=_PANEL)
]
Statuses = Annotated[
    list[OrchestrationStatus] | None,
    typer.Option("--status", case_sensitive=False, help="In this status; may be repeated.", rich_help_panel=_PANEL),
]
IdPrefix = Annotated[
    str, typer.Option("--id-prefix", metavar="TEXT", help="With ids that begin so.", rich_help_panel=_PANEL)
]
CreatedFrom = Annotated[
    datetime | None,
    typer.Option(
        "--created-from",
        parser=parse_instant,
        metavar="INSTANT",
        help=f"Created then or later. {_INSTANT}",
        rich_help_panel=_PANEL,
    ),
]
CreatedUntil = Annotated[
    datetime | None,
    typer.Option(
        "--created-until",
        parser=parse_instant,
        metavar="INSTANT",
        help="Created then or earlier.",
        rich_help_panel=_PANEL,
    ),
]
UpdatedFrom = Annotated[
    datetime | None,
    typer.Option(
        "--updated-from",
        parser=parse_instant,
        metavar="INSTANT",
        help="Changed last, or ended, then or later.",
        rich_help_panel=_PANEL,
    ),
]
UpdatedUntil = Annotated[
    datetime | None,
    typer.Option(
        "--updated-until",
        parser=parse_instant,
        metavar="INSTANT",
        help="Changed last, or ended, then or earlier.",
        rich_help_panel=_PANEL,
    ),
]
Parent = Annotated[
    str | None,
    typer.Option("--parent", metavar="INSTANCE_ID", help="Sub-orchestrations of this one.", rich_help_panel=_PANEL),
]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="NAME=VALUE", help="With this tag; may be repeated.", rich_help_panel=_PANEL),
]
CustomStatus = Annotated[
    Given | None,
    typer.Option(
        "--custom-status",
        parser=parse_json,
        metavar="JSON",
        help="With exactly this custom status.",
        rich_help_panel=_PANEL,
    ),
]
Parked = Annotated[
    bool | None,
    typer.Option("--parked/--not-parked", help="That wait for an operator, or do not.", rich_help_panel=_PANEL),
]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the options for instances say; a command takes them as one by `selecting`."""

    name: Name = None
    statuses: Statuses = None
    id_prefix: IdPrefix = ""
    created_from: CreatedFrom = None
    created_until: CreatedUntil = None
    updated_from: UpdatedFrom = None
    updated_until: UpdatedUntil = None
    parent: Parent = None
    tags: Tags = None
    custom_status: CustomStatus = None
    parked: Parked = None

    def query(self) -> InstanceQuery:
        """Return the query that the options make.

        Raises:
            typer.BadParameter: for a tag that is none.
        """
        return InstanceQuery(
            name=self.name,
            statuses=tuple(self.statuses or ()),
            id_prefix=self.id_prefix,
            created_from=self.created_from,
            created_until=self.created_until,
            updated_from=self.updated_from,
            updated_until=self.updated_until,
            parent_instance_id=self.parent,
            tags=parse_tags(self.tags or ()),
            custom_status=ANY if self.custom_status is None else self.custom_status.value,
            parked=self.parked,
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing was asked for, so that everything is meant."""
        return self.query() == Selection().query()


def selecting(*, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of `Selection`, and pass them on as its first argument.

    Args:
        without: the fields that this command does not take.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(Selection, include_extras=True)
        options = [
            Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
            for each in fields(Selection)
            if each.name not in without
        ]
        _, *others = inspect.signature(command, eval_str=True).parameters.values()
        others = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in others]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            selection = Selection(**{each.name: given.pop(each.name) for each in options})
            command(selection, **given)

        parameters = [*options, *others]
        # What typer reads, and the page of all commands.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions may have one
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate
