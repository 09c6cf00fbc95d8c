"""`holdfast doctor`: is all well in a store?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from holdfast.cli.configured import CONFIGURED_STORE, StoreUrl, configured_store
from holdfast.cli.connection import AsJson
from holdfast.cli.errors import NOT_WELL, leaving
from holdfast.cli.output import Progress, print_json, shown
from holdfast.engine.doctor import Finding, check_store
from holdfast.storage.open_store import open_whole
from holdfast.storage.transfer import Orphan, WholeHub


def doctor(
    store: StoreUrl = CONFIGURED_STORE,
    mend: Annotated[
        bool, typer.Option("--mend", help="Remove rows that belong to nobody. No host may run on the store.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a store, row by row. It only reads, so a host may run on it. Exit code 1 says that something is wrong."""
    with leaving():
        hub = open_whole(configured_store(store))
        progress = Progress()
        number, removed = 0, 0
        try:
            if not as_json:
                _tell_remarks(hub)
            for found in _damages(hub):
                _report(found, as_json)
                number += 1
            if not number:  # what a database reads out of a damaged file says nothing about the rows
                removed = hub.remove_orphans() if mend else 0
                for found in _findings(hub, progress):
                    progress.done()
                    _report(found, as_json)
                    number += 1
        finally:
            progress.done()
    if not as_json:
        typer.echo(_summary(number, removed))
    if number:
        sys.exit(NOT_WELL)


def _tell_remarks(hub: WholeHub) -> None:
    with hub.snapshot() as snapshot:
        for remark in snapshot.remarks():
            typer.echo(shown(remark, chars_max=None))


def _damages(hub: WholeHub) -> Iterator[Finding]:
    with hub.snapshot() as snapshot:
        for damage in snapshot.damages():
            yield Finding(rule="file", instance_id=None, what=f"{damage}.", advice="Restore the file from a backup.")


def _findings(hub: WholeHub, progress: Progress) -> Iterator[Finding]:
    with hub.snapshot() as snapshot:
        for orphan in snapshot.orphans():
            yield _orphan_finding(orphan)
        yield from check_store(snapshot, lambda number: progress.tell(f"Checked {number} instances"))


def _orphan_finding(orphan: Orphan) -> Finding:
    what = f"{orphan.table} {orphan.key[0]} {orphan.key[1]} belongs to nobody that goes on."
    if orphan.table == "history":
        what = f"history of execution {orphan.key[0]}, with {orphan.key[1]} episodes, belongs to no instance."
    return Finding(
        rule="orphan",
        instance_id=orphan.instance_id,
        what=what,
        advice="holdfast doctor --mend removes it; no host may run meanwhile.",
    )


def _report(found: Finding, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    who = found.instance_id or "the store"
    typer.echo(f"{shown(who, chars_max=None)}: {shown(found.what, chars_max=None)} [{found.rule}]\n    {found.advice}")


def _summary(number: int, removed: int) -> str:
    mended = f" Removed {removed} row{'' if removed == 1 else 's'} that belonged to nobody." if removed else ""
    return (f"{number} finding{'' if number == 1 else 's'}." if number else "All is well.") + mended
