"""Telling whether a file lies on a network file system, where locks and syncs may not do what they promise."""

from __future__ import annotations

import warnings
from pathlib import Path, PurePosixPath
from typing import Final

from holdfast.errors import StorageWarning

_NETWORK_TYPES: Final = frozenset(
    {"nfs", "nfs4", "cifs", "9p", "virtiofs", "afs", "ceph", "lustre", "glusterfs", "fuse.sshfs", "fuse.glusterfs"}
)


def network_file_system(path: PurePosixPath, mountinfo: str) -> str | None:
    """Return the type of the network file system that an absolute path lies on, by the text of Linux's mountinfo."""
    found: tuple[PurePosixPath, str] | None = None
    for line in mountinfo.splitlines():
        mount, separator, device = line.partition(" - ")
        fields = mount.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = PurePosixPath(_unescape(fields[4]))
        # Of mounts on the same point the last one covers the others.
        if path.is_relative_to(point) and (found is None or len(point.parts) >= len(found[0].parts)):
            found = (point, device.split(" ")[0])
    if found is None:
        return None
    kind = found[1]
    return kind if kind in _NETWORK_TYPES or kind.startswith("smb") else None


def warn_of_network(path: Path) -> None:
    """Warn if the file lies on a network file system. Only Linux can tell."""
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return
    kind = network_file_system(PurePosixPath(path), mountinfo)
    if kind is not None:
        warnings.warn(
            f"{str(path)!r} lies on a network file system ({kind}), where locks and syncs cannot be relied on: "
            "commits may be lost, or the file damaged. Put it on a local disk.",
            StorageWarning,
            stacklevel=2,
        )


def _unescape(field: str) -> str:
    r"""Undo the octal escapes of blank, tab, newline and backslash (`\040`, `\011`, `\012`, `\134`)."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field
