"""All modules that are checked together, and the files that their imports lead to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from holdfast.lint.findings import RULES, Finding
from holdfast.lint.scopes import Imported
from holdfast.lint.source import Module, UnreadableError, module_of, parse, read_text
from holdfast.lint.values import LocalModule

_SKIPPED: Final = frozenset({"__pycache__", "__pypackages__", "build", "dist", "node_modules", "site-packages", "venv"})
_ELSEWHERE: Final = frozenset({*sys.stdlib_module_names, "holdfast"})
"""Never looked for among the files: what they do is known, or is ours."""


class Program:
    """The modules by path. What the checked ones import is read too, if it lies beside them."""

    def __init__(self) -> None:
        self.checked: list[Module] = []
        self.sources: dict[str, str] = {}
        self.unreadable: list[Finding] = []
        self._modules: dict[Path, Module | None] = {}
        self._listed: dict[Path, Path | None] = {}

    @property
    def modules(self) -> list[Module]:
        """All that were read so far, sorted by path."""
        return sorted((each for each in self._modules.values() if each is not None), key=lambda each: each.path)

    def add(self, path: Path) -> None:
        """Read a file, or all Python files below a folder, to be checked."""
        if not path.is_dir():
            self._add_file(path, None)
            return
        for file in python_files(path):
            self._add_file(file, path)

    def _add_file(self, path: Path, folder: Path | None) -> None:
        key = path.resolve()
        if key not in self._modules:
            try:
                module = self._read(path, _roots(key, folder))
            except UnreadableError as error:
                self._modules[key] = None
                self.unreadable.append(_unreadable(path, error))
            else:
                self._modules[key] = module
                self.checked.append(module)

    def _read(self, path: Path, roots: tuple[Path, ...]) -> Module:
        text = read_text(path)
        module = module_of(parse(text, str(path)), str(path), roots)
        self.sources[str(path)] = text
        return module

    # Imports

    def find(self, importer: Module, imported: Imported) -> LocalModule | None:
        """Return the module of an import if it is a file beside the importer, or below one of its roots."""
        parts = [part for part in imported.module.split(".") if part]
        if imported.level:
            base = Path(importer.path).resolve().parent
            for _ in range(imported.level - 1):
                base = base.parent
            return self._descend(base, parts, importer.roots)
        if parts[0] in _ELSEWHERE:
            return None
        for root in importer.roots:
            found = self._descend(root, parts, importer.roots)
            if found is not None:
                return found
        return None

    def submodule(self, package: LocalModule, name: str) -> LocalModule | None:
        roots = package.module.roots if package.module else ()
        return self._step(package.folder, name, roots) if package.folder is not None else None

    def _descend(self, folder: Path, parts: list[str], roots: tuple[Path, ...]) -> LocalModule | None:
        if not parts:
            return LocalModule(self._load(folder / "__init__.py", roots), folder)
        for part in parts[:-1]:
            folder = folder / part
        return self._step(folder, parts[-1], roots)

    def _step(self, folder: Path, name: str, roots: tuple[Path, ...]) -> LocalModule | None:
        package = folder / name
        if self._is_file(package / "__init__.py"):
            return LocalModule(self._load(package / "__init__.py", roots), package)
        if self._is_file(folder / f"{name}.py"):
            return LocalModule(self._load(folder / f"{name}.py", roots), None)
        # A folder counts as a package only if there is Python in it; many others have the name of a library.
        return LocalModule(None, package) if os.path.isdir(package) and any(package.glob("*.py")) else None

    def _is_file(self, path: Path) -> bool:
        # Unlike Path.is_file(), this is False for a name that is too long, or a folder that cannot be looked into.
        if path not in self._listed:
            self._listed[path] = path.resolve() if os.path.isfile(path) else None
        return self._listed[path] is not None

    def _load(self, path: Path, roots: tuple[Path, ...]) -> Module | None:
        """Return the module of a file, which is read now if it was not; None if that cannot be."""
        if not self._is_file(path):
            return None
        key = self._listed[path] or path
        if key not in self._modules:
            try:
                self._modules[key] = self._read(_shown(path), roots)
            except UnreadableError:
                self._modules[key] = None  # nobody has asked for it to be checked
        return self._modules[key]


def python_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files below a folder, in order; hidden folders and what tools put there are left out."""
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    for path in inside:
        if path.is_dir():
            if not path.name.startswith(".") and path.name not in _SKIPPED and not path.is_symlink():
                yield from python_files(path)
        elif path.suffix == ".py":
            yield path


def _roots(path: Path, folder: Path | None) -> tuple[Path, ...]:
    """Where the absolute imports of a file are looked for: above its package, and in the folder that is checked."""
    top = path.parent
    while (top / "__init__.py").is_file() and top.parent != top:
        top = top.parent
    asked = [] if folder is None or (folder / "__init__.py").is_file() else [folder.resolve(), folder.resolve() / "src"]
    return tuple(dict.fromkeys((top, *asked)))


def _shown(path: Path) -> Path:
    """The path as a user would write it."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _unreadable(path: Path, error: UnreadableError) -> Finding:
    rule = RULES["HF001"]
    message = f"The file {rule.says}: {error}."
    return Finding(str(path), error.line, error.column, rule.code, rule.severity, message, rule.fix)


def unreadable_source(filename: str, error: UnreadableError) -> Finding:
    """The finding for a source that is no file."""
    return _unreadable(Path(filename), error)


def sorted_once(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in the order of the source; of several at one place with one code, the first."""
    kept: dict[tuple[str, int, int, str], Finding] = {}
    for each in sorted(findings):
        kept.setdefault((each.path, each.line, each.column, each.code), each)
    return list(kept.values())
