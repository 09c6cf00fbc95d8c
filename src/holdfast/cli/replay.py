"""`holdfast replay`: do recorded histories still replay with the code as it is now?"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec
import typer

from holdfast.app import App
from holdfast.cli.configured import configured, store_of
from holdfast.cli.errors import CommandError
from holdfast.cli.load import load_app
from holdfast.cli.stored import reading
from holdfast.codec.exported import decode_exported
from holdfast.engine.config import HostConfig
from holdfast.engine.exports import check_replay, read_history
from holdfast.errors import (
    CorruptRecordError,
    InstanceNotFoundError,
    NonDeterminismError,
    NotRegisteredError,
    VersionMismatchError,
)
from holdfast.model.exported import ExportedHistory
from holdfast.model.ids import is_entity
from holdfast.storage.port import InstanceRow, Store

_PAGE: Final = 200


class ReplayOptions(msgspec.Struct, frozen=True):
    """The options as given; `settings` are texts of the form `name=value`."""

    target: str
    files: tuple[Path, ...]
    store: str | None
    name: str | None
    limit: int | None
    as_json: bool
    settings: tuple[str, ...]


class Result(enum.StrEnum):
    """What became of one history."""

    OK = "ok"
    DIFFERS = "differs"
    NOT_REGISTERED = "not registered"
    OTHER_VERSION = "other version"
    UNREADABLE = "unreadable"


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report; `instance_id` and what follows it is unknown for a file that cannot be read."""

    source: str
    instance_id: str | None = None
    name: str | None = None
    version: str | None = None
    result: Result
    message: str | None = None


def replay_histories(options: ReplayOptions) -> bool:
    """Replay what the options name, and report; return whether all of it is well.

    Raises:
        CommandError: if neither files nor a store are named, or there is no app to replay with.
        HoldfastError: if a setting or the store cannot be used.
    """
    configuration = configured({"store": options.store}, options.settings)
    if not options.files and configuration.server.store is None:
        raise CommandError("There is nothing to replay: name exported histories, or a store with --store.")
    url = store_of(configuration) if options.store or not options.files else None
    app = load_app(options.target).app
    if options.name is not None:
        app.registry.check_orchestrator_name(options.name)
    replay = _Replay(app, configuration.host, options)
    for path in options.files:
        replay.file(path)
    if url is not None:
        asyncio.run(replay.store(url))
    replay.sum_up()
    return replay.is_well


class _Replay:
    """Replays one history after the other, and tells of each as soon as it is done."""

    def __init__(self, app: App, config: HostConfig, options: ReplayOptions) -> None:
        self._app = app
        self._config = config
        self._options = options
        self._counts: Counter[Result] = Counter()
        self._skipped = 0

    @property
    def is_well(self) -> bool:
        return self._counts.total() == self._counts[Result.OK]

    def file(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
            raise CommandError(f"{str(path)!r} cannot be read: {why}.") from error
        try:
            history = decode_exported(text)
        except CorruptRecordError as error:
            self._report(Checked(source=str(path), result=Result.UNREADABLE, message=str(error)))
            return
        if self._is_wanted(history.name):
            self._check(str(path), history)
        else:
            self._skipped += 1

    async def store(self, url: str) -> None:
        async with reading(url) as store:
            after, left = "", self._options.limit
            while rows := await store.instances(after, _PAGE):
                for row in rows:
                    if left == 0:
                        return
                    if await self._stored(url, store, row) and left is not None:
                        left -= 1
                after = rows[-1].instance_id

    async def _stored(self, source: str, store: Store, row: InstanceRow) -> bool:
        """Check one instance of a store, if it has a history of the name that is wanted; return whether it has."""
        if is_entity(row.instance_id) or row.episodes == 0 or not self._is_wanted(row.name):
            self._skipped += 1
            return False
        try:
            history = await read_history(store, row.instance_id)
        except InstanceNotFoundError:
            return False  # it has gone since the page was read
        except CorruptRecordError as error:
            self._report(
                Checked(
                    source=source,
                    instance_id=row.instance_id,
                    name=row.name,
                    version=row.version,
                    result=Result.UNREADABLE,
                    message=str(error),
                )
            )
        else:
            self._check(source, history)
        return True

    def _is_wanted(self, name: str) -> bool:
        return self._options.name is None or name.casefold() == self._options.name.casefold()

    def _check(self, source: str, history: ExportedHistory) -> None:
        result, message = self._replayed(history)
        self._report(
            Checked(
                source=source,
                instance_id=history.instance_id,
                name=history.name,
                version=history.version,
                result=result,
                message=message,
            )
        )

    def _replayed(self, history: ExportedHistory) -> tuple[Result, str | None]:
        try:
            check_replay(self._app.registry, history, self._config)
        except NonDeterminismError as error:
            return Result.DIFFERS, str(error)
        except NotRegisteredError as error:
            return Result.NOT_REGISTERED, str(error)
        except VersionMismatchError as error:
            return Result.OTHER_VERSION, str(error)
        return Result.OK, None

    def _report(self, checked: Checked) -> None:
        self._counts[checked.result] += 1
        if self._options.as_json:
            typer.echo(msgspec.json.encode(checked).decode())
            return
        version = f" version {checked.version}" if checked.version else ""
        what = f"{checked.instance_id}  {checked.name}{version}" if checked.instance_id else checked.source
        typer.echo(f"{checked.result:<14}  {what}")
        if checked.message is not None:
            typer.echo("".join(f"  {line}\n" for line in checked.message.splitlines()), nl=False)

    def sum_up(self) -> None:
        if self._options.as_json:
            return
        counts = ", ".join(f"{self._counts[result]} {result}" for result in Result if self._counts[result])
        skipped = f"; {self._skipped} skipped (entities, other names, and what has not run yet)"
        typer.echo(f"{counts or 'Nothing to replay'}{skipped if self._skipped else ''}.")
