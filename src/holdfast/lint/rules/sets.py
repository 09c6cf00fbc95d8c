"""Iteration over sets: the order of strings in a set differs from process to process."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from holdfast.lint.rules.site import Hit, Site, waits
from holdfast.lint.values import CONTEXT, is_set

_UNORDERED: Final = frozenset(
    {"all", "any", "collections.Counter", "frozenset", "len", "math.fsum", "max", "min", "set", "sorted", "sum"}
)
"""What comes out of these is the same for every order."""
_ORDERED: Final = frozenset(
    {
        "collections.deque",
        "dict.fromkeys",
        "enumerate",
        "filter",
        "functools.reduce",
        "iter",
        "itertools.chain",
        "itertools.islice",
        "itertools.product",
        "list",
        "map",
        "next",
        "reversed",
        "tuple",
        "zip",
    }
)
"""These take an iterable and keep its order."""


def check_sets(site: Site) -> Iterator[Hit]:
    for node in site.nodes:
        yield from (Hit(each, "HF105", "This") for each in _iterated(site, node) if is_set(site.resolve(each)))


def _iterated(site: Site, node: ast.AST) -> Iterator[ast.expr]:
    """Yield what a node goes over in its order."""
    match node:
        case ast.For():
            yield node.iter
        case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
            if not _is_unordered(site, node):
                yield from (each.iter for each in node.generators)
        case ast.Starred(ctx=ast.Load()):
            if not isinstance(site.parent(node), ast.Set):
                yield node.value
        case ast.Assign(targets=[ast.Tuple() | ast.List()]):
            yield node.value
        case ast.YieldFrom():
            yield node.value
        case ast.Call():
            yield from _of_call(site, node)
        case _:
            return


def _of_call(site: Site, call: ast.Call) -> Iterator[ast.expr]:
    if isinstance(call.func, ast.Attribute):
        if call.func.attr == "pop" and not call.args:
            yield call.func.value
        elif call.func.attr == "join" or site.dotted(call.func) == f"{CONTEXT}.map":
            yield from call.args
    if site.dotted(call.func) in _ORDERED and not _is_unordered(site, call):
        yield from call.args


def _is_unordered(site: Site, node: ast.expr) -> bool:
    """Whether what is made goes right into something that does not keep the order, and asks for nothing on the way."""
    parent = site.parent(node)
    if not isinstance(parent, ast.Call) or node not in parent.args or site.dotted(parent.func) not in _UNORDERED:
        return False
    inside = list(ast.walk(node))
    asks = (isinstance(each, ast.Call) and site.dotted(each.func).startswith(f"{CONTEXT}.") for each in inside)
    return not waits([ast.Expr(node)]) and not any(asks)
