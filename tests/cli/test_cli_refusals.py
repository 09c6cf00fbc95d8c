"""What the command says when it cannot start: one message, exit code 2, no traceback of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_process import TINY, holdfast
from typer.testing import CliRunner

import holdfast as package
from holdfast.cli.main import commands

FILES = {
    "tiny.py": TINY,
    "empty.py": "",
    "two.py": "from holdfast import App\nfirst = App()\nsecond = App()\n",
    "broken.py": "def f():\n    return 1 / 0\n\nf()\n",
    "syntax.py": "def\n",
    "missing.py": "import nowhere_to_be_found\n",
    "sys.py": TINY,
    "a.b.py": TINY,
    "notes.txt": "",
    "wrong.py": "from holdfast import App\napp = App()\n@app.activity\ndef f(a, b): ...\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["nothing.py"], ["'nothing.py' does not exist"]),
        (["."], ["is a directory"]),
        (["notes.txt"], ["cannot be imported"]),
        (["a.b.py"], ["cannot be imported", "one word"]),
        (["sys.py"], ["another module 'sys'", "Rename"]),
        (["no_such_module"], ["There is no module 'no_such_module'"]),
        (["no_such.module"], ["There is no module 'no_such'"]),
        (["not a module"], ["neither a file nor"]),
        (["empty.py"], ["has no App", "app = App()"]),
        (["two.py"], ["several", "two.py:first", "first, second"]),
        (["two.py:third"], ["no App named 'third'", "first, second"]),
        (["broken.py"], ["ZeroDivisionError", "line 2", "return 1 / 0"]),
        (["syntax.py"], ["SyntaxError", "syntax.py"]),
        (["missing.py"], ["ModuleNotFoundError", "nowhere_to_be_found", "line 1"]),
        (["wrong.py"], ["ConfigurationError", "line 3"]),
        (["tiny.py", "--set", "thread_max=3"], ["no setting 'thread_max'", "Did you mean 'threads_max'?"]),
        (["tiny.py", "--set", "threads_max=many"], ["wrong type"]),
        (["tiny.py", "--set", "threads_max=0"], ["more than zero"]),
        (["tiny.py", "--set", "threads_max"], ["NAME=VALUE"]),
        (["tiny.py", "--store", "holdfast.db"], ["sqlite:///holdfast.db"]),
        (["tiny.py", "--store", "sqlite:////no/such/folder/x.db", "--port", "0"], ["/no/such/folder"]),
        (["tiny.py", "--host", "0.0.0.0"], ["0.0.0.0", "HOLDFAST_KEY", "--key", "127.0.0.1"]),
        (["tiny.py", "--host", "::"], ["--key"]),
        (["tiny.py", "--host", "0.0.0.0", "--key", ""], ["a key is needed"]),
        (["tiny.py", "--port", "70000"], ["--port"]),
    ],
)
def test_it_says_what_is_wrong(folder: Path, arguments: list[str], parts: list[str]) -> None:
    ended = holdfast("run", *arguments, cwd=folder)
    assert ended.returncode == 2, ended.stderr
    for part in parts:
        assert part in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "importlib" not in ended.stderr
    assert not (folder / "holdfast.db").exists()


def test_version_and_help() -> None:
    version = CliRunner().invoke(commands, ["--version"])
    assert (version.exit_code, version.output) == (0, f"holdfast {package.__version__}\n")
    shown = CliRunner().invoke(commands, ["run", "--help"], env={"HOLDFAST_KEY": "sw0rdfish", "COLUMNS": "200"})
    assert shown.exit_code == 0
    for option in ("--store", "--port", "--host", "--key", "--set"):
        assert option in shown.output
    assert "sw0rdfish" not in shown.output
