"""`holdfast lint`: is there anything in orchestrator code that a replay would do otherwise?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import typer

from holdfast.cli.errors import CommandError
from holdfast.lint.check import Report, report_on
from holdfast.lint.findings import RULES, Finding, Severity


class LintOptions(msgspec.Struct, frozen=True):
    """The options as given; codes may be beginnings of codes, several in one text with commas between them."""

    paths: tuple[Path, ...]
    select: tuple[str, ...]
    ignore: tuple[str, ...]
    as_json: bool


def lint_paths(options: LintOptions) -> bool:
    """Check what the options name, and report; return whether there is nothing but infos.

    Raises:
        CommandError: if a path is not there, a code is unknown, or a file is no Python; that is said at the end.
    """
    select, ignore = _codes(options.select), _codes(options.ignore)
    for path in options.paths:
        if not path.exists():
            raise CommandError(f"{str(path)!r} does not exist.")
    report = report_on(options.paths)
    findings = [each for each in report.findings if _is_wanted(each, select, ignore)]
    for each in findings:
        typer.echo(msgspec.json.encode(each).decode() if options.as_json else f"{each}\n    {each.fix}")
    if not options.as_json:
        typer.echo(_summary(findings, report))
    if unreadable := [each.path for each in findings if each.code == "HF001"]:
        raise CommandError(f"Not checked: {', '.join(unreadable)}.")
    return all(each.severity is Severity.INFO for each in findings)


def _codes(given: Sequence[str]) -> tuple[str, ...]:
    codes = tuple(code.strip().upper() for text in given for code in text.split(",") if code.strip())
    for code in codes:
        if not any(known.startswith(code) for known in RULES):
            raise CommandError(f"No rule has the code {code!r}; there are {', '.join(RULES)}.")
    return codes


def _is_wanted(finding: Finding, select: tuple[str, ...], ignore: tuple[str, ...]) -> bool:
    if finding.code == "HF001":  # whatever was selected was not looked for there
        return True
    return (not select or finding.code.startswith(select)) and not (ignore and finding.code.startswith(ignore))


def _summary(findings: Sequence[Finding], report: Report) -> str:
    counts = Counter(each.severity for each in findings)
    found = ", ".join(_counted(counts[each], each.value) for each in Severity if counts[each])
    looked_at = f"{_counted(report.orchestrators, 'orchestrator')} in {_counted(report.files, 'file')}"
    return f"{found or 'Nothing found'}: {looked_at}."


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
