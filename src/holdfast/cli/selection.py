"""Which instances: the filters that `list`, `count`, `purge` and `parked` share."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

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


def query_of(
    *,
    name: str | None = None,
    statuses: list[OrchestrationStatus] | None = None,
    id_prefix: str = "",
    created_from: datetime | None = None,
    created_until: datetime | None = None,
    updated_from: datetime | None = None,
    updated_until: datetime | None = None,
    parent: str | None = None,
    tags: list[str] | None = None,
    custom_status: Given | None = None,
    parked: bool | None = None,
) -> InstanceQuery:
    """Return the query that the options of a command line make."""
    return InstanceQuery(
        name=name,
        statuses=tuple(statuses or ()),
        id_prefix=id_prefix,
        created_from=created_from,
        created_until=created_until,
        updated_from=updated_from,
        updated_until=updated_until,
        parent_instance_id=parent,
        tags=parse_tags(tags or ()),
        custom_status=ANY if custom_status is None else custom_status.value,
        parked=parked,
    )
