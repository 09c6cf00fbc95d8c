"""Checks sources and files: finds the orchestrators, what they reach, and what is wrong with it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.lint.discover import Reach, Reached, Roles, named_elsewhere
from holdfast.lint.findings import RULES, Finding
from holdfast.lint.names import NoFiles, Resolver
from holdfast.lint.program import Program, sorted_once, unreadable_source
from holdfast.lint.rules.calls import check_calls
from holdfast.lint.rules.changes import Changes
from holdfast.lint.rules.flow import check_after_end, check_endless, check_swallowed
from holdfast.lint.rules.sets import check_sets
from holdfast.lint.rules.site import Check, Hit, Site
from holdfast.lint.rules.state import check_defaults, check_state
from holdfast.lint.rules.tasks import check_asking, check_awaits, check_unawaited
from holdfast.lint.source import Module, UnreadableError, module_of, parse, without_silenced

_CHECKS: Final[tuple[Check, ...]] = (
    check_calls,
    check_sets,
    check_state,
    check_defaults,
    check_unawaited,
    check_awaits,
    check_asking,
    check_endless,
    check_swallowed,
    check_after_end,
)


class Report(msgspec.Struct, frozen=True):
    """What was found, and how much was looked at."""

    findings: list[Finding]
    files: int
    orchestrators: int


def check_source(source: str, filename: str = "<string>") -> list[Finding]:
    """Check one source by itself; nothing is imported, read or run.

    Args:
        filename: for the findings only.
    """
    try:
        module = module_of(parse(source, filename), filename)
        findings = check_module(module)
    except UnreadableError as error:
        findings = [unreadable_source(filename, error)]
    return without_silenced(findings, source)


def check_paths(paths: Iterable[str | Path]) -> list[Finding]:
    """Check files, and all Python files below folders, together; what they import is followed if it lies beside them.

    A file that cannot be read or parsed is a finding, too: `HF001`.
    """
    return report_on([Path(each) for each in paths]).findings


def report_on(paths: Sequence[Path]) -> Report:
    """Check paths as `check_paths` does, and count."""
    program = Program()
    for path in paths:
        program.add(path)
    resolver = Resolver(program)
    roles = Roles(resolver)
    for module in program.checked:
        roles.add(module)
    reached = Reach(resolver, roles).from_orchestrators(program.checked)
    found = _check(reached, resolver, roles, program.modules)
    by_path: dict[str, list[Finding]] = {}
    for each in found:
        by_path.setdefault(each.path, []).append(each)
    kept = [each for path, some in by_path.items() for each in without_silenced(some, program.sources[path])]
    orchestrators = sum(len(each.chain) == 1 for each in reached)
    return Report(sorted_once([*program.unreadable, *kept]), len(program.checked), orchestrators)


def check_module(module: Module) -> list[Finding]:
    """Check a module of which only the tree is known; comments are not looked at.

    Raises:
        UnreadableError: if it is nested too deeply.
    """
    resolver = Resolver(NoFiles())
    roles = Roles(resolver)
    try:
        reached = Reach(resolver, roles).from_orchestrators([module])
        return _check(reached, resolver, roles, [module])
    except RecursionError as error:
        raise UnreadableError("it is nested too deeply") from error


def _check(reached: list[Reached], resolver: Resolver, roles: Roles, modules: Sequence[Module]) -> list[Finding]:
    if not reached:
        return []
    changes = Changes(resolver, modules)
    apps_are_known = any(_makes_app(resolver, module) for module in modules)
    findings: list[Finding] = []
    for each in reached:
        elsewhere = frozenset(named_elsewhere(resolver, each.module, each.nodes))
        site = Site(each, resolver, roles, changes, apps_are_known, elsewhere)
        findings += [_finding(each, hit) for check in _CHECKS for hit in check(site)]
    return sorted_once(findings)


def _makes_app(resolver: Resolver, module: Module) -> bool:
    calls = (node for node in module.nodes if isinstance(node, ast.Call))
    return any(resolver.dotted(module, node.func) == "holdfast.App" for node in calls)


def _finding(reached: Reached, hit: Hit) -> Finding:
    rule = RULES[hit.code]
    return Finding(
        path=reached.module.path,
        line=hit.node.lineno,
        column=hit.node.col_offset + 1,
        code=rule.code,
        severity=rule.severity,
        message=f"{hit.subject} {rule.says}.",
        fix=hit.fix or rule.fix,
        chain=reached.chain,
    )
