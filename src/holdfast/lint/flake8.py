"""The same as a plugin of flake8, one file at a time: what a file imports is not followed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.metadata import version
from typing import ClassVar

from holdfast.lint.check import check_module
from holdfast.lint.source import UnreadableError, module_of


class Checker:
    """What flake8 makes for each file; comments that silence findings are its own business."""

    name: ClassVar[str] = "holdfast"
    version: ClassVar[str] = version("holdfast")

    def __init__(self, tree: ast.Module, filename: str) -> None:
        self._tree = tree
        self._filename = filename

    def run(self) -> Iterator[tuple[int, int, str, type[Checker]]]:
        """Yield line, column from 0, text, and this class."""
        try:
            findings = check_module(module_of(self._tree, self._filename))
        except UnreadableError:
            return
        for each in findings:
            yield each.line, each.column - 1, f"{each.code} {each.message} {each.fix}", type(self)
