"""One module as it was read: its tree, its names, and what its comments silence."""

from __future__ import annotations

import ast
import re
import tokenize
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from holdfast.lint.findings import Finding
from holdfast.lint.scopes import Function, ScopeBuilder

_NOQA: Final = re.compile(r"#\s*noqa\b(?P<codes>\s*:\s*[A-Z][0-9A-Z]*(?:[\s,]+[A-Z]+[0-9]+)*)?", re.IGNORECASE)


class UnreadableError(Exception):
    """A file is not there, or is no Python."""

    def __init__(self, why: str, line: int = 1, column: int = 1) -> None:
        super().__init__(why)
        self.line = line
        self.column = column


class Module:
    """A module that was read; `roots` are the folders in which its absolute imports are looked for."""

    def __init__(self, path: str, tree: ast.Module, roots: tuple[Path, ...]) -> None:
        self.path = path
        self.tree = tree
        self.roots = roots
        built = ScopeBuilder(tree)
        self.scope = built.top
        self.scope_of = built.scope_of
        self.parents = built.parents
        self.nodes: tuple[ast.AST, ...] = (tree, *built.parents)
        """All of them, in the order of the source."""
        self.functions: tuple[Function, ...] = tuple(
            node for node in self.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        )

    def ancestors(self, node: ast.AST) -> Iterable[ast.AST]:
        """Yield what a node is a part of, from the inside out."""
        current = self.parents.get(node)
        while current is not None:
            yield current
            current = self.parents.get(current)


def parse(source: str | bytes, path: str) -> ast.Module:
    """Return the tree of a source.

    Raises:
        UnreadableError: if it is no Python.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in literals, say; they are somebody else's to report
            return ast.parse(source, path)
    except SyntaxError as error:
        raise UnreadableError(f"it is no Python: {error.msg}", error.lineno or 1, max(error.offset or 1, 1)) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise UnreadableError(f"it cannot be parsed: {error}") from error


def module_of(tree: ast.Module, path: str, roots: tuple[Path, ...] = ()) -> Module:
    """Return a module with its names.

    Raises:
        UnreadableError: if it is nested so deeply that Python cannot walk through it.
    """
    try:
        return Module(path, tree, roots)
    except RecursionError as error:
        raise UnreadableError("it is nested too deeply") from error


def read_text(path: Path) -> str:
    """Return the text of a file, in the encoding that it declares.

    Raises:
        UnreadableError: if there is none.
    """
    try:
        with tokenize.open(path) as file:
            return file.read()
    except OSError as error:
        raise UnreadableError(f"it cannot be read: {error.strerror or error}") from error
    except (SyntaxError, UnicodeError) as error:
        raise UnreadableError("it is not in the encoding that it declares, or not in UTF-8") from error


def without_silenced(findings: Iterable[Finding], source: str) -> list[Finding]:
    """Leave out what a `# noqa` on its line silences: everything, or the codes that it names or begins."""
    lines = re.split(r"\r\n|\r|\n", source)
    return [each for each in findings if not _is_silenced(each, lines)]


def _is_silenced(finding: Finding, lines: list[str]) -> bool:
    line = lines[finding.line - 1] if finding.line <= len(lines) else ""
    found = _NOQA.search(line)
    if found is None:
        return False
    if found["codes"] is None:
        return True
    codes = re.findall(r"[A-Z]+[0-9]*", found["codes"].upper())
    return finding.code.startswith(tuple(codes))
