"""What is called, used or handed on by name: clocks, chance, I/O, threads, loggers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from holdfast.lint.discover import owner_scope
from holdfast.lint.rules.forbidden import EXACT, UNLESS_GIVEN, forbidden
from holdfast.lint.rules.site import Hit, Site, blocks
from holdfast.lint.values import CONTEXT, LocalClass, LocalFunction

_FIXES: Final = {
    "HF202": {"pathlib.Path()": "Do it in an activity; a PurePath is enough to take a path apart."},
    "HF204": {"queue": "Use a list or a deque, or ctx.wait_for_external_event."},
}
_REPEATS_ONLY: Final = frozenset({"HF207", "HF208"})
"""What does no harm where the code makes sure that it does not replay."""
_USED_WITHOUT_CALL: Final = frozenset({"os.environ", "os.environb", "sys.argv"})


def check_calls(site: Site) -> Iterator[Hit]:
    for node in site.nodes:
        if isinstance(node, ast.Call):
            yield from _called(site, node)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield from _used(site, node)


def _called(site: Site, call: ast.Call) -> Iterator[Hit]:
    called = site.resolve(call.func)
    if isinstance(called, LocalClass):
        yield from _made(site, call, called)
    if isinstance(called, LocalFunction) and site.roles.of(called.node) == "activity":
        yield Hit(call, "HF304", f"`{called.node.name}`")
        return
    dotted = site.dotted(call.func)
    if not dotted or dotted.startswith(f"{CONTEXT}."):
        return
    code = _code(site, call, dotted)
    if code is not None and not (code in _REPEATS_ONLY and is_guarded(site, call)):
        yield Hit(call, code, f"`{_shown(dotted)}()`", _fix(code, dotted))


def _made(site: Site, call: ast.Call, cls: LocalClass) -> Iterator[Hit]:
    """Yield the default factories that run when an object is made without those fields."""
    given = {each.arg for each in call.keywords}
    if None in given or any(isinstance(each, ast.Starred) for each in call.args):
        return
    fields = [each for each in cls.node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
    for field in fields[len(call.args) :]:
        name = field.target.id if isinstance(field.target, ast.Name) else ""
        if name not in given and isinstance(field.value, ast.Call):
            for option in field.value.keywords:
                if option.arg == "default_factory":
                    yield from _by_factory(site, call, cls, name, option.value)


def _by_factory(site: Site, call: ast.Call, cls: LocalClass, field: str, factory: ast.expr) -> Iterator[Hit]:
    inside = [each.func for each in ast.walk(factory) if isinstance(each, ast.Call)]
    for each in [factory, *inside]:
        dotted = site.resolver.dotted(cls.module, each)
        code = forbidden(dotted)
        if code is not None:
            yield Hit(
                call, code, f"`{cls.node.name}()` calls `{dotted}()` for its field `{field}`, which", _fix(code, dotted)
            )


def _code(site: Site, call: ast.Call, dotted: str) -> str | None:
    if dotted in UNLESS_GIVEN:
        code, most = UNLESS_GIVEN[dotted]
        given = [each for each in call.args if not (isinstance(each, ast.Constant) and each.value is None)]
        return code if len(given) + len(call.keywords) <= most else None
    if dotted.startswith(("random.Random().", "numpy.random.default_rng().")):
        return "HF102" if _is_shared(site, call.func) else None
    return forbidden(dotted)


def _is_shared(site: Site, node: ast.expr) -> bool:
    """Whether what a method is called on is a name of a module."""
    while isinstance(node, ast.Attribute):
        node = node.value
    if not isinstance(node, ast.Name):
        return False
    scope = owner_scope(site.module, node)
    return scope is not None and scope.parent is None


def _used(site: Site, node: ast.Name | ast.Attribute) -> Iterator[Hit]:
    """Yield what is used without a call: the environment, and functions that are handed on as callbacks."""
    parent = site.parent(node)
    if isinstance(parent, ast.Call) and parent.func is node:
        return
    dotted = site.dotted(node)
    if dotted in _USED_WITHOUT_CALL:
        yield Hit(node, "HF104", f"`{dotted}`")
        return
    is_argument = isinstance(parent, ast.keyword) or (isinstance(parent, ast.Call) and node in parent.args)
    if is_argument and node not in site.elsewhere and dotted in EXACT:
        yield Hit(node, EXACT[dotted], f"`{dotted}`", _fix(EXACT[dotted], dotted))
    elif is_argument and node not in site.elsewhere and dotted.rpartition(".")[2].islower() and "()" not in dotted:
        code = forbidden(dotted)
        if code is not None and dotted not in UNLESS_GIVEN:
            yield Hit(node, code, f"`{dotted}`", _fix(code, dotted))


def is_guarded(site: Site, node: ast.AST) -> bool:
    """Whether a node runs only while the code does not replay: `if not ctx.is_replaying`, or behind a return."""
    inner = node
    for outer in site.module.ancestors(node):
        if isinstance(outer, ast.If):
            if inner in outer.body and _is_not_replaying(outer.test):
                return True
            if inner in outer.orelse and _is_replaying(outer.test):
                return True
        for block in blocks(outer):
            if any(_leaves_replay(each) for each in _before(inner, block)):
                return True
        inner = outer
    return False


def _before(node: ast.AST, block: list[ast.stmt]) -> list[ast.stmt]:
    return block[: next((index for index, each in enumerate(block) if each is node), 0)]


def _leaves_replay(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and _is_replaying(node.test) and isinstance(node.body[-1], ast.Return)


def _is_replaying(test: ast.expr) -> bool:
    return isinstance(test, ast.Attribute) and test.attr == "is_replaying"


def _is_not_replaying(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(_is_not_replaying(each) for each in test.values)
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) and _is_replaying(test.operand)


def _shown(dotted: str) -> str:
    return dotted.replace("()", "(...)") if "()" in dotted else dotted


def _fix(code: str, dotted: str) -> str | None:
    fixes = _FIXES.get(code, {})
    return next((fix for head, fix in fixes.items() if dotted.startswith(f"{head}.")), None)
