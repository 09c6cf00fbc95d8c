"""What is printed: aligned, safe for terminals, coloured and restless on terminals alone."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
import typer

from holdfast.cli import output, patience
from holdfast.cli.output import Bar, Progress, print_fields, print_table, shown
from holdfast.cli.values import (
    Given,
    duration_text,
    parse_duration,
    parse_instant,
    parse_json,
    parse_tags,
    parse_timeout,
)
from holdfast.cli.views import failure_text
from holdfast.model.failure import FailureDetails


def test_tables_are_aligned_also_with_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B"), [("x", "1"), ("日本", "2")])
    assert capsys.readouterr().out == "A     B\nx     1\n日本  2\n"
    print_table(("A",), [])
    assert capsys.readouterr().out == ""


def test_data_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields([("Output", "\x1b[2J\nx"), ("Empty", "")])
    assert capsys.readouterr().out == "Output  \\x1b[2J\\nx\n"
    assert shown("x" * 100) == "x" * 79 + "…"


def test_colours_only_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not output.is_coloured()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.is_coloured()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.is_coloured()


def test_progress_only_for_terminals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for is_terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)  # noqa: B023 - used at once
        progress = Progress()
        progress.tell("Purged 100")
        progress.tell("Done")
        progress.done()
        progress.done()
        expected = "\rPurged 100\rDone      \r    \r" if is_terminal else ""
        assert capsys.readouterr().err == expected


@pytest.mark.parametrize(("is_terminal", "is_quiet"), [(True, False), (True, True), (False, False)])
def test_a_bar_only_for_terminals_whose_user_wants_it(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, is_quiet: bool
) -> None:
    error_output = io.StringIO()
    monkeypatch.setattr(error_output, "isatty", lambda: is_terminal)
    monkeypatch.setattr("sys.stderr", error_output)
    monkeypatch.setenv("TERM", "xterm")
    with Bar("Purging", 4, is_quiet=is_quiet) as bar:
        bar.tell(3)
    shown = error_output.getvalue()
    assert ("Purging" in shown and "3/4" in shown) == (is_terminal and not is_quiet)
    assert is_terminal or not shown


def test_waits_tell_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(Progress, "tell", lambda _, text: told.append(text))
    monkeypatch.setattr(patience, "_TELLS_S", 0.0)

    async def main() -> int:
        over = asyncio.Event()

        async def work() -> int:
            await over.wait()
            return 7

        waiting = asyncio.create_task(patience.patiently(work(), "Waiting for a"))
        while not told:
            await asyncio.sleep(0)
        over.set()
        return await waiting

    assert asyncio.run(main()) == 7
    assert told[0] == "Waiting for a: 0 s"


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("null", None), ('"x"', "x"), ('{"a": [true]}', {"a": [True]}), ("-5", -5)]
)
def test_json(text: str, value: object) -> None:
    assert parse_json(text) == Given(value)


@pytest.mark.parametrize("text", ["hello", "{a: 1}", "'x'", "", "[" * 10_000, "\udc80"])
def test_what_is_no_json_shows_how_to_quote(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="quotation marks"):
        parse_json(text)


def test_a_bare_word_is_shown_as_it_should_be_written() -> None:
    with pytest.raises(typer.BadParameter, match=f"'{json.dumps('hello')}'"):
        parse_json("hello")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("1.5s", timedelta(seconds=1.5)),
        ("1h30m", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_durations(text: str, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "5", "-1s", "1 h", "soon", "1hx", "99999999w", "1y"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_duration(text)


@pytest.mark.parametrize(("text", "expected_s"), [("5", 5), ("0.5", 0.5), ("5s", 5), ("1m30s", 90)])
def test_a_timeout_may_be_a_number_of_seconds(text: str, expected_s: float) -> None:
    assert parse_timeout(text) == timedelta(seconds=expected_s)


@pytest.mark.parametrize("text", ["", "-5", "5 ", "1e3", "nan", "99999999999", "soon"])
def test_what_is_no_timeout(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_timeout(text)


def test_a_failure_that_was_only_passed_on_is_told_once() -> None:
    origin = FailureDetails("builtins.OSError", "no disk")
    failure = FailureDetails("builtins.ValueError", "X", inner_failure=origin)
    for _ in range(2):
        failure = FailureDetails("builtins.ValueError", "X", inner_failure=failure)
    assert failure_text(failure) == "builtins.ValueError: X; caused by builtins.OSError: no disk"
    assert failure_text(None) == ""


def test_instants_and_tags() -> None:
    assert parse_instant("2026-01-01T12:00Z") == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert parse_instant("2026-01-01").tzinfo is not None
    assert parse_tags(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    for text in ("=1", "a"):
        with pytest.raises(typer.BadParameter):
            parse_tags([text])
    with pytest.raises(typer.BadParameter):
        parse_instant("tomorrow")


def test_durations_for_people() -> None:
    assert duration_text(timedelta(days=1, hours=2, minutes=3)) == "1d 2h"
    assert duration_text(timedelta(seconds=90)) == "1m 30s"
    assert duration_text(timedelta(seconds=-5)) == "0s"
