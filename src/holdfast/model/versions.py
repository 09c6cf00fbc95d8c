"""Versions of orchestrations: which is older, and which code may run which instance."""

from __future__ import annotations

from typing import Literal, TypeAlias

VersionMatch: TypeAlias = Literal["none", "strict", "current_or_older"]
VersionFailure: TypeAlias = Literal["reject", "fail"]


def compare_versions(first: str | None, second: str | None) -> int:
    """Return -1, 0 or 1, as `first` is older than, equal to or newer than `second`.

    No version is older than any. Dotted numbers compare by number, with missing parts as zero; anything else compares
    as text without regard to case. That is how the Durable Functions family compares.
    """
    one, two = first or "", second or ""
    if one.casefold() == two.casefold():
        return 0
    if not one or not two:
        return -1 if not one else 1
    numbers = _numbers(one), _numbers(two)
    if numbers[0] is not None and numbers[1] is not None:
        length = max(len(numbers[0]), len(numbers[1]))
        left, right = (each + (0,) * (length - len(each)) for each in (numbers[0], numbers[1]))
        return (left > right) - (left < right)
    return -1 if one.casefold() < two.casefold() else 1


def _numbers(version: str) -> tuple[int, ...] | None:
    parts = version.split(".")
    return tuple(int(part) for part in parts) if all(part.isascii() and part.isdigit() for part in parts) else None


def matches(instance_version: str | None, host_version: str | None, rule: VersionMatch) -> bool:
    """Return whether a host of some version may run an instance of some version.

    A host that has none runs them all, unless the rule is strict.
    """
    match rule:
        case "none":
            return True
        case "strict":
            return compare_versions(instance_version, host_version) == 0
        case "current_or_older":
            return host_version is None or compare_versions(instance_version, host_version) <= 0
