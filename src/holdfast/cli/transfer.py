"""`holdfast export | import`: a whole hub, with all that is in flight, as JSON lines.

A header names the format; each row is one line; a trailer has the number of lines and the SHA-256 of all before it, so
that a file that was cut or changed is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import msgspec
import typer

from holdfast.cli.configured import CONFIGURED_STORE, StoreUrl, configured_store
from holdfast.cli.errors import CommandError, leaving
from holdfast.cli.files import creating
from holdfast.cli.output import Progress
from holdfast.storage.open_store import open_whole
from holdfast.storage.transfer import ROWS_VERSION, TABLES, AnyRow, HubRecord, Snapshot, WholeHub

FORMAT_VERSION: Final = 2
_LINE_BYTES_MAX: Final = 256 * 1024 * 1024
_TELLS_EVERY: Final = 1_000

File = Annotated[Path, typer.Argument(metavar="FILE")]


class _Versions(msgspec.Struct, frozen=True, kw_only=True):
    """What of a header can be read whatever version wrote it."""

    format: str
    v: int
    rows_version: int | None = None


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`v` numbers the form of the file, `rows_version` what is in the rows; no schema of a store is meant."""

    format: str
    v: int
    rows_version: int
    hub: HubRecord


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    table: str
    row: msgspec.Raw


class _Trailer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rows: int
    sha256: str


_FORMAT: Final = "holdfast-hub"
_DECODERS: Final = {name: msgspec.json.Decoder(kind) for name, kind in TABLES.items()}


def export_hub(
    file: File,
    store: StoreUrl = CONFIGURED_STORE,
) -> None:
    """Write a whole store to a new file, as it is at one moment, for your eyes alone. A host may run on it."""
    with leaving():
        progress = Progress()
        try:
            with open_whole(configured_store(store)).snapshot() as snapshot, creating(file) as output:
                rows = _write(snapshot, output, progress)
        finally:
            progress.done()
    typer.echo(f"Exported {rows} rows.")


def _write(snapshot: Snapshot, output: BinaryIO, progress: Progress) -> int:
    hub = snapshot.hub()
    if hub is None:
        raise CommandError("There is nothing to export: no host has come up on this store yet.")
    digest = hashlib.sha256()
    rows = 0

    def write(record: object) -> None:
        line = msgspec.json.encode(record) + b"\n"
        digest.update(line)
        output.write(line)

    write(_Header(format=_FORMAT, v=FORMAT_VERSION, rows_version=ROWS_VERSION, hub=hub))
    for table in TABLES:
        for row in snapshot.rows(table):
            write(_Line(table, msgspec.Raw(msgspec.json.encode(row))))
            rows += 1
            if rows % _TELLS_EVERY == 0:
                progress.tell(f"Exported {rows} rows")
    output.write(msgspec.json.encode(_Trailer(rows=rows, sha256=digest.hexdigest())) + b"\n")
    return rows


def import_hub(file: File, store: StoreUrl = CONFIGURED_STORE) -> None:
    """Read what `export` wrote, of whatever kind of store, into one that is new or empty; all of it, or nothing.

    Stop the host of the original first, or both will run what is in flight.
    """
    with leaving():
        hub = open_whole(configured_store(store))
        progress = Progress()
        try:
            with file.open("rb") as source:
                rows = _read(source, hub, str(file), progress)
        except OSError as error:
            raise _unreadable(str(file), error) from error
        finally:
            progress.done()
    typer.echo(f"Imported {rows} rows.")


def _read(source: BinaryIO, hub: WholeHub, name: str, progress: Progress) -> int:
    reader = _Reader(source, name, progress)
    hub.restore(reader.header(), reader.rows())
    return reader.count


def _unreadable(name: str, error: OSError) -> CommandError:
    return CommandError(f"{name!r} cannot be read: {error.strerror or error}.")


class _Reader:
    """Reads line by line, and refuses at the end what is not whole: the rows are stored only after that."""

    def __init__(self, source: BinaryIO, name: str, progress: Progress) -> None:
        self._source = source
        self._name = name
        self._digest = hashlib.sha256()
        self._progress = progress
        self.count = 0

    def header(self) -> HubRecord:
        line = self._line()
        self._digest.update(line)
        try:
            self._check_versions(msgspec.json.decode(line, type=_Versions))
            return msgspec.json.decode(line, type=_Header).hub
        except msgspec.MsgspecError as error:
            raise CommandError(f"{self._name!r} is no export of a task hub: {error}.") from error

    def _check_versions(self, found: _Versions) -> None:
        if found.format != _FORMAT:
            raise CommandError(f"{self._name!r} is no export of a task hub, but of {found.format!r:.40}.")
        if (found.v, found.rows_version) != (FORMAT_VERSION, ROWS_VERSION):
            raise CommandError(
                f"{self._name!r} was exported by another version of Holdfast (format {found.v}, rows "
                f"{found.rows_version}); this one reads {FORMAT_VERSION} and {ROWS_VERSION}. Import it with the "
                "version that exported it, start a host of this one on that store, and export it again."
            )

    def rows(self) -> Iterator[AnyRow]:
        while line := self._line():
            if line.startswith(b'{"rows"'):
                self._check_trailer(line)
                return
            yield self._row(line)
            self._digest.update(line)
            self.count += 1
            if self.count % _TELLS_EVERY == 0:
                self._progress.tell(f"Imported {self.count} rows")
        raise CommandError(f"{self._name!r} was cut: it has no end. Nothing was imported.")

    def _line(self) -> bytes:
        try:
            return self._source.readline(_LINE_BYTES_MAX)
        except OSError as error:  # said here: to a store it would be an error of its own files or network
            raise _unreadable(self._name, error) from error

    def _row(self, line: bytes) -> AnyRow:
        try:
            record = msgspec.json.decode(line, type=_Line)
            return _DECODERS[record.table].decode(record.row)
        except (msgspec.MsgspecError, KeyError) as error:
            where = f"line {self.count + 2} of {self._name!r}"
            raise CommandError(f"Nothing was imported: {where} cannot be read, or was cut: {error}.") from error

    def _check_trailer(self, line: bytes) -> None:
        try:
            trailer = msgspec.json.decode(line, type=_Trailer)
        except msgspec.MsgspecError as error:
            raise CommandError(f"Nothing was imported: the end of {self._name!r} was cut: {error}.") from error
        if (trailer.rows, trailer.sha256) != (self.count, self._digest.hexdigest()) or self._source.read(1):
            raise CommandError(f"Nothing was imported: {self._name!r} was changed after it was written.")
