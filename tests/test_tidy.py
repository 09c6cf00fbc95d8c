"""The rules of the house that no linter knows: which rooms are pure, how long things may be, what is left over.

Every rule is a function from source text to complaints, so that each can be tried on planted text first.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "holdfast"
MODULES = sorted(SRC.rglob("*.py"))

PURE_ROOMS = ("model", "codec", "hub", "replay")
"""They decide from their arguments alone. A clock, chance or I/O in there would make a replay differ from the run."""
PURE_MODULES = [path for path in MODULES if path.relative_to(SRC).parts[0] in PURE_ROOMS]

MODULE_LINES_MAX = 400
CLASS_LINES_MAX = 300
FUNCTION_LINES_MAX = 60

_IMPURE_MODULES = frozenset(
    {
        "asyncio",
        "concurrent",
        "importlib",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "secrets",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib",
        "uvloop",
    }
)
_PURE_SUBMODULES = frozenset({"urllib.parse"})
"""What is pure all the same, in a package that is not."""
# The import of such a package is let through, so what is used of it has to be looked at.
_REPORTED_AT_IMPORT = _IMPURE_MODULES - {name.partition(".")[0] for name in _PURE_SUBMODULES}
_FOR_TYPES_ONLY = frozenset({"logging"})
_IMPURE_NAMES = frozenset(
    {
        "datetime.date.today",
        "datetime.datetime.now",
        "datetime.datetime.today",
        "datetime.datetime.utcnow",
        "uuid.uuid1",
        "uuid.uuid4",
    }
)
_IMPURE_BUILTINS = frozenset({"__import__", "breakpoint", "input", "open", "print"})

Rule = Callable[[str], list[str]]


# Purity


def impurities(source: str) -> list[str]:
    """Every import and every name by which a pure room would reach the outside world."""
    return list(_impurities(ast.parse(source)))


def _impurities(tree: ast.Module) -> Iterator[str]:
    names = _imported_names(tree)
    for_types = set(_for_type_checking(tree))
    parts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            allowed = _FOR_TYPES_ONLY if node in for_types else frozenset[str]()
            yield from (f"{node.lineno}: imports {each}" for each in _dotted(node) if _is_impure(each, allowed))
        elif isinstance(node, ast.Attribute | ast.Name) and id(node) not in parts:
            name = _full_name(node, names)
            # A name from a `from` import was reported where it was imported.
            if name and isinstance(node, ast.Attribute) and _is_impure(name, _REPORTED_AT_IMPORT):
                yield f"{node.lineno}: uses {name}"
        if isinstance(node, ast.Call):
            called = _full_name(node.func, names)
            if called == "random.Random" and not node.args and not node.keywords:
                yield f"{node.lineno}: calls random.Random without a seed"
            if isinstance(node.func, ast.Name) and node.func.id in _IMPURE_BUILTINS and node.func.id not in names:
                yield f"{node.lineno}: calls {node.func.id}"


def _is_impure(name: str, allowed_modules: frozenset[str]) -> bool:
    module = name.partition(".")[0]
    if module == "random":
        return name not in ("random", "random.Random")
    if ".".join(name.split(".")[:2]) in _PURE_SUBMODULES:
        return False
    return name in _IMPURE_NAMES or (module in _IMPURE_MODULES and module not in allowed_modules)


def _dotted(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    return [f"{node.module}.{each.name}" for each in node.names]


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: `dt` for `datetime`, `now` for `datetime.datetime.now`."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                top = each.name.partition(".")[0]  # `import os.path` binds `os`
                names[each.asname or top] = each.name if each.asname else top
        elif isinstance(node, ast.ImportFrom):
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return names


def _full_name(node: ast.expr, names: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _full_name(node.value, names)
        return owner and f"{owner}.{node.attr}"
    return None


def _for_type_checking(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from node.body


# Size


def too_long(source: str) -> list[str]:
    """The module, the classes and the functions that are longer than one can take in; a decorator does not count."""
    lines = source.count("\n")
    found = [f"the module has {lines} lines"] if lines > MODULE_LINES_MAX else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            most = CLASS_LINES_MAX
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            most = FUNCTION_LINES_MAX
        else:
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > most:
            found.append(f"{node.lineno}: {node.name} has {lines} lines")
    return found


# What is left over or missing


def without_docstring(source: str) -> list[str]:
    return [] if ast.get_docstring(ast.parse(source)) else ["the module has no docstring"]


def unfinished(source: str) -> list[str]:
    return [f"{line}: {text}" for line, text in _comments(source) if re.search(r"\b(TODO|FIXME|XXX)\b", text)]


_IGNORE = re.compile(r"#\s*(?:type|pyright|mypy|basedpyright):\s*ignore")
_REASONED_IGNORE = re.compile(r"#\s*(?:type|pyright):\s*ignore\[[\w\-, ]+\]\s+[#-]\s*\S+ \S+")


def unexplained_ignores(source: str) -> list[str]:
    """Every silenced checker without both the code of what is silenced and the reason."""
    return [
        f"{line}: {text}"
        for line, text in _comments(source)
        if _IGNORE.search(text) and not _REASONED_IGNORE.search(text)
    ]


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


# The rules on planted text


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from time import monotonic",
        "import os",
        "import os.path",
        "from os import environ",
        "import io",
        "import pathlib",
        "from pathlib import Path",
        "import socket",
        "import subprocess",
        "import threading",
        "import asyncio",
        "import asyncio as aio",
        "def f():\n    import asyncio.events",
        "from concurrent.futures import ThreadPoolExecutor",
        "import multiprocessing",
        "import logging",
        "from logging import getLogger",
        "if DEBUG:\n    import logging",
        "import sqlite3",
        "import secrets",
        "import urllib",
        "import urllib.request",
        "from urllib import request",
        "from urllib.request import urlopen",
        "import urllib.parse\nx = urllib.request.urlopen('http://localhost')",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import asyncio",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import logging",
        "from datetime import datetime\nx = datetime.now()",
        "from datetime import datetime\nx = datetime.utcnow()",
        "from datetime import datetime as D\nx = D.today()",
        "from datetime import date\nx = date.today()",
        "import datetime\nx = datetime.datetime.now()",
        "import datetime as dt\nx = dt.date.today()",
        "from datetime import datetime\nclock = datetime.now",
        "import random\nx = random.random()",
        "import random\nx = random.choice([1])",
        "import random\nx = random.Random()",
        "from random import Random\nx = Random()",
        "from random import randint",
        "import random\nx = random.SystemRandom()",
        "import uuid\nx = uuid.uuid1()",
        "import uuid\nx = uuid.uuid4()",
        "from uuid import uuid4",
        "print(1)",
        "open('x')",
        "def f(x):\n    with open(x) as file:\n        return file",
        "__import__('os')",
    ],
)
def test_an_impurity_is_found(source: str) -> None:
    assert len(impurities(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import logging",
        "import typing\nif typing.TYPE_CHECKING:\n    from logging import Logger",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import logging\ndef f(x: logging.Logger): ...",
        "from datetime import datetime, timedelta, UTC\nx = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(1)",
        "from datetime import time",
        "import random\nx: random.Random = random.Random('seed')",
        "import uuid\nx = uuid.uuid5(uuid.NAMESPACE_URL, 'x')",
        "import urllib.parse\nx = urllib.parse.urljoin('http://a/', 'b')",
        "from urllib import parse",
        "from urllib.parse import urljoin, urlsplit",
        "class Journal:\n    def open(self): ...\nJournal().open()",
        "now = clock()\nx = now.time()",
    ],
)
def test_what_is_pure_is_let_through(source: str) -> None:
    assert impurities(source) == []


def _function(lines: int) -> str:
    return "def f():\n" + "    x = 1\n" * (lines - 1)


def _class(lines: int) -> str:
    return "class C:\n" + "    x = 1\n" * (lines - 1)


@pytest.mark.parametrize(
    ("source", "complaints"),
    [
        ("x = 1\n" * 400, 0),
        ("x = 1\n" * 401, 1),
        (_function(60), 0),
        (_function(61), 1),
        ("async " + _function(61), 1),
        ("class C:\n    def f():\n" + "        x = 1\n" * 60, 1),
        (_class(300), 0),
        (_class(301), 1),
    ],
)
def test_what_is_too_long_is_found(source: str, complaints: int) -> None:
    assert len(too_long(source)) == complaints


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (without_docstring, "x = 1"),
        (without_docstring, ""),
        (unfinished, "x = 1  # TODO: more"),
        (unfinished, "# FIXME"),
        (unexplained_ignores, "x = y  # type: ignore"),
        (unexplained_ignores, "x = y  # type: ignore[attr-defined]"),
        (unexplained_ignores, "x = y  # type: ignore  # the library has no stubs"),
        (unexplained_ignores, "x = y  # pyright: ignore"),
        (unexplained_ignores, "x = y  # pyright: ignore[reportPrivateUsage]"),
        (unexplained_ignores, "x = y  # pyright:ignore - no stubs"),
        (unexplained_ignores, "# mypy: ignore-errors"),
    ],
)
def test_what_is_left_over_or_missing_is_found(rule: Rule, source: str) -> None:
    assert len(rule(source)) == 1


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (without_docstring, '"""Something."""'),
        (unfinished, "todo = 'TODO'  # a list of what is to be done"),
        (unexplained_ignores, "x = y  # type: ignore[attr-defined]  # the library has no stubs"),
        (unexplained_ignores, "x = y  # pyright: ignore[reportPrivateUsage] - documented all the same"),
        (unexplained_ignores, "x = '# type: ignore'"),
    ],
)
def test_what_is_in_order_is_let_through(rule: Rule, source: str) -> None:
    assert rule(source) == []


# The rules on the source


@pytest.mark.parametrize("rule", [too_long, without_docstring, unfinished, unexplained_ignores])
def test_every_module_keeps_the_rules(rule: Rule) -> None:
    complaints = _complaints(rule, MODULES)
    assert not complaints, "\n".join(complaints)


def test_the_pure_rooms_are_pure() -> None:
    assert {path.relative_to(SRC).parts[0] for path in PURE_MODULES} == set(PURE_ROOMS)
    complaints = _complaints(impurities, PURE_MODULES)
    assert not complaints, "\n".join(complaints)


def _complaints(rule: Rule, paths: list[Path]) -> list[str]:
    """All of them, as `room/module.py:12: what`, so that one run shows the whole of the work."""
    return [
        f"{path.relative_to(SRC).as_posix()}:{complaint}"
        for path in paths
        for complaint in rule(path.read_text(encoding="utf-8"))
    ]
