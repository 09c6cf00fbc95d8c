"""A disk under SQLite that remembers what was synced, and can say what a power cut would have left of it.

SQLite reaches files through a table of functions, its VFS. Here the real one is wrapped, by ctypes, in the very
library that Python's `sqlite3` uses: every write, sync, truncation and removal is noted, in order, before it is done;
and a test may make each of them fail instead. What a disk holds after a power cut is worked out from the notes
afterwards, so one run of a workload stands for any number of cuts.

What a disk may do: everything synced is there. Of the rest each write is there or not, or some of its sectors, in any
order. What an unsuccessful sync should have stored may be lost for good, although later syncs succeed: so do Linux's
file systems. A disk that lies about a sync is none of our business: no database survives it.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

SECTOR = 512
FULL, IOERR_WRITE, IOERR_FSYNC = 13, 10 | 3 << 8, 10 | 4 << 8
"""What SQLite is told: no room; a write or a sync has failed."""

_OPEN_READONLY, _OPEN_READWRITE, _OPEN_CREATE = 1, 2, 4
_WORD = ctypes.sizeof(ctypes.c_void_p)
# Where the functions lie in the tables, counted in words: see `sqlite3_vfs` and `sqlite3_io_methods` in sqlite3.h.
_VFS_WORDS, _NAME, _OPEN, _DELETE = 21, 3, 5, 6
_IO_WORDS, _CLOSE, _WRITE, _TRUNCATE, _SYNC = 19, 1, 3, 4, 5

_Pointer = ctypes.c_void_p
_OpenType = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, _Pointer, ctypes.c_int, ctypes.POINTER(ctypes.c_int))
_DeleteType = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_char_p, ctypes.c_int)
_CloseType = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer)
_WriteType = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, ctypes.c_int, ctypes.c_int64)
_TruncateType = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int64)
_SyncType = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int)


@dataclass(frozen=True)
class Operation:
    """What was done to a file. `kind` is write, truncate, sync, failed sync, delete, or delete for good."""

    kind: str
    name: str
    offset: int = 0
    data: bytes = b""


Fault = Callable[[Operation], int]
"""Return what SQLite is to be told instead of doing an operation; 0 lets it be done."""


class Disk:
    """The files of one directory, as SQLite writes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.operations: list[Operation] = []
        self.fault: Fault = lambda operation: 0
        self.is_read_only = False
        """Whether files can be opened for reading only; what is open already has to be failed by `fault`."""

    def owns(self, path: Path) -> bool:
        return path.parent == self.directory

    def do(self, operation: Operation, really: Callable[[], int]) -> int:
        refused = self.fault(operation)
        if not refused:
            # Noted before it is done: who sees its effects finds it in the notes.
            self.operations.append(operation)
            return really()
        if operation.kind == "sync":
            self.operations.append(Operation("failed sync", operation.name))
        return refused

    def write(self, operation: Operation, really: Callable[[int], int]) -> int:
        size = len(operation.data)
        refused = self.do(operation, lambda: really(size))
        if refused and not self.is_read_only:
            # As when the room ends within a write, or the disk does.
            self.operations.append(Operation("write", operation.name, operation.offset, operation.data[: size // 2]))
            really(size // 2)
        return refused


@dataclass
class _OpenFile:
    disk: Disk
    name: str
    methods: Any
    replaced: Any


class _Vfs:
    """The wrapped table, made once; it must live as long as any connection that was opened through it."""

    def __init__(self) -> None:
        self.library: Any = ctypes.CDLL(_sqlite3.__file__)
        self.library.sqlite3_vfs_find.restype = _Pointer
        self.library.sqlite3_vfs_register.argtypes = [_Pointer, ctypes.c_int]
        self.disks: list[Disk] = []
        self._files: dict[int, _OpenFile] = {}
        self._lock = threading.Lock()
        self.real = self.library.sqlite3_vfs_find(None)
        self._words = _words_at(self.real, _VFS_WORDS)
        self._table = (_Pointer * _VFS_WORDS)(*self._words)
        self._name = ctypes.create_string_buffer(b"power")
        self._callbacks = [_OpenType(self._open), _DeleteType(self._delete)]
        self._table[2] = None
        self._table[_NAME] = ctypes.addressof(self._name)
        self._table[_OPEN] = ctypes.cast(self._callbacks[0], _Pointer).value
        self._table[_DELETE] = ctypes.cast(self._callbacks[1], _Pointer).value
        self._file_callbacks = {
            _CLOSE: _CloseType(self._close),
            _WRITE: _WriteType(self._write),
            _TRUNCATE: _TruncateType(self._truncate),
            _SYNC: _SyncType(self._sync),
        }
        self._tables: dict[int, Any] = {}
        self.address = ctypes.addressof(self._table)

    def _disk_of(self, name: bytes | None) -> tuple[Disk, Path] | None:
        path = Path(name.decode()) if name else None
        return next(((disk, path) for disk in self.disks if path and disk.owns(path)), None)

    def _open(self, vfs: int, name: int, file: int, flags: int, out_flags: Any) -> int:
        found = self._disk_of(ctypes.cast(name, ctypes.c_char_p).value if name else None)
        if found and found[0].is_read_only and flags & _OPEN_READWRITE:
            flags = flags & ~(_OPEN_READWRITE | _OPEN_CREATE) | _OPEN_READONLY
        answer = _OpenType(self._words[_OPEN])(vfs, name, file, flags, out_flags)
        if answer or found is None:
            return answer
        methods = ctypes.cast(file, ctypes.POINTER(_Pointer))
        replaced = methods[0]
        with self._lock:
            self._files[file] = _OpenFile(found[0], found[1].name, _words_at(replaced, _IO_WORDS), replaced)
            if replaced not in self._tables:
                table = (_Pointer * _IO_WORDS)(*_words_at(replaced, _IO_WORDS))
                for index, callback in self._file_callbacks.items():
                    table[index] = ctypes.cast(callback, _Pointer).value
                self._tables[replaced] = table
        methods[0] = ctypes.addressof(self._tables[replaced])
        return 0

    def _delete(self, vfs: int, name: bytes, sync_directory: int) -> int:
        really = lambda: _DeleteType(self._words[_DELETE])(vfs, name, sync_directory)  # noqa: E731
        found = self._disk_of(name)
        kind = "delete for good" if sync_directory else "delete"
        return found[0].do(Operation(kind, found[1].name), really) if found else really()

    def _close(self, file: int) -> int:
        with self._lock:
            known = self._files.pop(file)
        ctypes.cast(file, ctypes.POINTER(_Pointer))[0] = known.replaced
        return _CloseType(known.methods[_CLOSE])(file)

    def _write(self, file: int, data: int, size: int, offset: int) -> int:
        known = self._files[file]
        really = _WriteType(known.methods[_WRITE])
        operation = Operation("write", known.name, offset, ctypes.string_at(data, size))
        return known.disk.write(operation, lambda length: really(file, data, length, offset))

    def _truncate(self, file: int, size: int) -> int:
        known = self._files[file]
        operation = Operation("truncate", known.name, size)
        return known.disk.do(operation, lambda: _TruncateType(known.methods[_TRUNCATE])(file, size))

    def _sync(self, file: int, flags: int) -> int:
        known = self._files[file]
        return known.disk.do(Operation("sync", known.name), lambda: _SyncType(known.methods[_SYNC])(file, flags))


def _words_at(address: int, count: int) -> list[Any]:
    return list(ctypes.cast(address, ctypes.POINTER(_Pointer))[:count])


_vfs: list[_Vfs] = []


def is_possible() -> bool:
    """Whether Python's `sqlite3` uses a library whose functions can be reached."""
    try:
        return hasattr(ctypes.CDLL(_sqlite3.__file__), "sqlite3_vfs_find")
    except (AttributeError, OSError):
        return False  # built into the interpreter


@contextmanager
def recorded(directory: Path) -> Iterator[Disk]:
    """Note what SQLite does to the files in a directory that are opened meanwhile."""
    if not _vfs:
        _vfs.append(_Vfs())
    [vfs], disk = _vfs, Disk(directory)
    vfs.disks.append(disk)
    vfs.library.sqlite3_vfs_register(vfs.address, 1)
    try:
        yield disk
    finally:
        vfs.library.sqlite3_vfs_register(vfs.real, 1)
        vfs.disks.remove(disk)


# What a power cut leaves


@dataclass
class _File:
    content: bytearray = field(default_factory=bytearray)
    """What is certainly there."""
    exists: bool = False
    pending: list[tuple[Operation, str]] = field(default_factory=list)
    """What was done since then, with `open`, `lost` (a sync of it has failed), or `kept` (a later one succeeded)."""


Fate = Callable[[Operation], bytes | None]
"""Given an operation that was not synced, return what of it arrives: all, a mixture, or None for nothing."""


Files = Mapping[str, bytes]


def files_after_cut(before: Files, operations: list[Operation], fate: Fate) -> Files:
    """Return what is on the disk if the power fails after these operations; `before` is what was there at first."""
    files = {name: _File(bytearray(content), exists=True) for name, content in before.items()}
    for operation in operations:
        file = files.setdefault(operation.name, _File())
        match operation.kind:
            case "sync":
                # A sync of any file stores the directory, too: file systems have one journal.
                for each in files.values():
                    _finish_deletion(each)
                file.exists = True
                file.pending = [(each, "kept" if how == "open" else how) for each, how in file.pending]
                while file.pending and file.pending[0][1] == "kept":
                    _apply(file, file.pending.pop(0)[0])
            case "delete for good":
                files[operation.name] = _File()
            case "failed sync":
                file.pending = [(each, "lost" if how == "open" else how) for each, how in file.pending]
            case _:
                file.pending.append((operation, "open"))
    return dict(_arrived(files, fate))


def _finish_deletion(file: _File) -> None:
    deleted = [index for index, (operation, _) in enumerate(file.pending) if operation.kind == "delete"]
    if deleted:
        file.content, file.exists, file.pending = bytearray(), False, file.pending[deleted[-1] + 1 :]


def _arrived(files: dict[str, _File], fate: Fate) -> Iterator[tuple[str, bytes]]:
    for name, file in files.items():
        for operation, how in file.pending:
            if how == "kept":
                _apply(file, operation)
                continue
            data = fate(operation)
            if data is not None:
                file.exists = True
                _apply(file, Operation(operation.kind, name, operation.offset, data))
            elif operation.kind == "delete":
                break  # what was written later went into another file, which has no name yet
        if file.exists:
            yield name, bytes(file.content)


def _apply(file: _File, operation: Operation) -> None:
    match operation.kind:
        case "write":
            end = operation.offset + len(operation.data)
            file.content.extend(bytes(max(0, end - len(file.content))))
            file.content[operation.offset : end] = operation.data
        case "truncate":
            del file.content[operation.offset :]
            file.content.extend(bytes(operation.offset - len(file.content)))
        case "delete":
            file.content.clear()
            file.exists = False


def nothing_arrives(operation: Operation) -> None:
    """The fate of a write that the disk had not begun."""


def everything_arrives(operation: Operation) -> bytes:
    """The fate of a write that the disk was done with, although nobody had waited for it."""
    return operation.data


def some_arrives(dice: Random) -> Fate:
    """Return a fate that lets every write arrive, or not, or in parts, or as something else."""
    chance = dice.random()

    def fate(operation: Operation) -> bytes | None:
        if dice.random() < chance:
            return operation.data
        if operation.kind != "write" or dice.random() < 0.5:
            return None
        sectors = [operation.data[at : at + SECTOR] for at in range(0, len(operation.data), SECTOR)]
        return b"".join(_sector(each, dice) for each in sectors)

    return fate


def _sector(sector: bytes, dice: Random) -> bytes:
    """What becomes of a sector of which it is only known that its place in the file has been made."""
    return dice.choice((sector, bytes(len(sector)), dice.randbytes(len(sector))))
