"""What a rule gets to see, and what it says."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec

from holdfast.lint.discover import Reached, Roles, function_of
from holdfast.lint.names import Resolver
from holdfast.lint.rules.changes import Changes
from holdfast.lint.source import Module
from holdfast.lint.values import Value, dotted_name


class Hit(msgspec.Struct, frozen=True, eq=False):
    """A place that breaks a rule; `subject` is the beginning of the sentence that the rule goes on with."""

    node: ast.expr | ast.stmt | ast.ExceptHandler
    code: str
    subject: str
    fix: str | None = None


class Site(msgspec.Struct, frozen=True, eq=False):
    """One function that runs as orchestrator code, and what is known around it."""

    reached: Reached
    resolver: Resolver
    roles: Roles
    changes: Changes
    apps_are_known: bool
    """Whether the app itself was read, so that names that are not registered are of interest."""
    elsewhere: frozenset[ast.AST]
    """What is only named, to be run elsewhere."""

    @property
    def module(self) -> Module:
        return self.reached.module

    @property
    def nodes(self) -> tuple[ast.AST, ...]:
        return self.reached.nodes

    @property
    def is_orchestrator(self) -> bool:
        return len(self.reached.chain) == 1

    @property
    def calls(self) -> Iterator[ast.Call]:
        return (node for node in self.nodes if isinstance(node, ast.Call))

    def parent(self, node: ast.AST) -> ast.AST | None:
        return self.module.parents.get(node)

    def resolve(self, node: ast.expr) -> Value | None:
        return self.resolver.resolve(self.module, node)

    def dotted(self, node: ast.expr) -> str:
        return dotted_name(self.resolve(node))

    def function_of(self, node: ast.AST) -> ast.AST | None:
        return function_of(self.module, node)


Check: TypeAlias = Callable[[Site], Iterator[Hit]]


def is_generator(function: ast.AST) -> bool:
    """Whether a `def` yields."""
    waiting: list[ast.AST] = list(function.body) if isinstance(function, ast.FunctionDef) else []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(node))
    return False


def waits(nodes: list[ast.stmt]) -> bool:
    """Whether there is an `await` or a `yield` in some statements, not counting functions that they define."""
    waiting: list[ast.AST] = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Await | ast.Yield | ast.YieldFrom | ast.AsyncWith | ast.AsyncFor):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(node))
    return False


def blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """Yield the blocks of a statement: its body, its `else`, its handlers, its cases."""
    children = list(ast.iter_child_nodes(node))
    for name in ("body", "orelse", "finalbody"):
        block: object = getattr(node, name, None)
        if isinstance(block, list):
            yield [each for each in children if isinstance(each, ast.stmt) and each in block]
    for each in children:
        if isinstance(each, ast.ExceptHandler | ast.match_case):
            yield each.body
