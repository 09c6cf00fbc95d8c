"""Loops without end, cancellations that are swallowed, and what comes too late."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from holdfast.lint.rules.site import Hit, Site, blocks, waits
from holdfast.lint.values import CONTEXT

_SWALLOWING: Final = frozenset({"BaseException"})
_LEAVING: Final = (ast.Return, ast.Break, ast.Continue)


def check_endless(site: Site) -> Iterator[Hit]:
    for node in site.nodes:
        match node:
            case ast.While(test=ast.Constant(value=true)) if true and not _leaves(site, node.body, in_loop=False):
                yield Hit(node, "HF401", "This loop")
            case _:
                pass


def _leaves(site: Site, nodes: list[ast.stmt], *, in_loop: bool) -> bool:
    """Whether a loop with this body can end; `in_loop` is about another loop inside of it."""
    for node in nodes:
        if isinstance(node, ast.Return | ast.Raise) or (isinstance(node, ast.Break) and not in_loop):
            return True
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        calls = (each for each in ast.walk(node) if isinstance(each, ast.Call))
        if any(site.dotted(each.func) == f"{CONTEXT}.continue_as_new" for each in calls):
            return True
        is_loop = isinstance(node, ast.For | ast.AsyncFor | ast.While)
        if any(_leaves(site, block, in_loop=in_loop or is_loop) for block in blocks(node)):
            return True
    return False


def check_swallowed(site: Site) -> Iterator[Hit]:
    for node in site.nodes:
        if isinstance(node, ast.Try | ast.TryStar) and waits(node.body):
            for handler in node.handlers:
                if _catches_all(site, handler.type) and not _raises(handler.body):
                    yield Hit(handler, "HF305", "`except:`" if handler.type is None else "`except BaseException`")
            for each in node.finalbody:
                if isinstance(each, _LEAVING):
                    yield Hit(each, "HF305", "Leaving a `finally` by this statement", "Leave it behind the block.")


def _catches_all(site: Site, kind: ast.expr | None) -> bool:
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(each is None or site.dotted(each) in _SWALLOWING for each in kinds)


def _raises(nodes: list[ast.stmt]) -> bool:
    return any(isinstance(each, ast.Raise) for node in nodes for each in ast.walk(node))


def check_after_end(site: Site) -> Iterator[Hit]:
    for node in site.nodes:
        if isinstance(node, ast.stmt):
            for block in blocks(node):
                yield from _behind(site, block)
    yield from _behind(site, site.reached.node.body)


def _behind(site: Site, block: list[ast.stmt]) -> Iterator[Hit]:
    """Yield the first statement of a block that waits after it has called `continue_as_new`."""
    has_ended = False
    for node in block:
        if has_ended and waits([node]):
            yield Hit(node, "HF306", "This")
            return
        is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        has_ended = has_ended or (is_call and _continues(site, node))


def _continues(site: Site, node: ast.stmt) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return isinstance(call, ast.Call) and site.dotted(call.func) == f"{CONTEXT}.continue_as_new"
