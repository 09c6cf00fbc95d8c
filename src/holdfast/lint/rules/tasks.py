"""How durable tasks are made and awaited."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from holdfast.lint.rules.calls import is_guarded
from holdfast.lint.rules.forbidden import forbidden
from holdfast.lint.rules.site import Hit, Site, is_generator
from holdfast.lint.scopes import Assigned, Parameter
from holdfast.lint.values import CONTEXT, LocalFunction, dotted_name

_TASKS: Final = frozenset(
    f"{CONTEXT}.{name}"
    for name in (
        "call_activity",
        "call_entity",
        "call_http",
        "call_sub_orchestrator",
        "carried_task",
        "create_timer",
        "lock",
        "map",
        "wait_for_external_event",
    )
)
_COMBINATIONS: Final = frozenset(f"holdfast.{name}" for name in ("race", "select", "when_all", "when_any"))
_AWAITABLE: Final = _TASKS | _COMBINATIONS
"""Calls that return something to be awaited."""
_ONE_WAY: Final = frozenset(
    f"{CONTEXT}.{name}"
    for name in ("continue_as_new", "send_event", "signal_entity", "start_orchestration", "patched", "new_uuid")
)
"""Calls that need no `await`."""
_POSITIONAL_MAX: Final = {
    f"{CONTEXT}.call_activity": 2,
    f"{CONTEXT}.call_entity": 3,
    f"{CONTEXT}.call_sub_orchestrator": 2,
    f"{CONTEXT}.continue_as_new": 1,
    f"{CONTEXT}.send_event": 3,
    f"{CONTEXT}.signal_entity": 3,
    f"{CONTEXT}.start_orchestration": 2,
}
_KINDS: Final = {
    f"{CONTEXT}.call_activity": "activity",
    f"{CONTEXT}.call_sub_orchestrator": "orchestrator",
    f"{CONTEXT}.start_orchestration": "orchestrator",
}
_NOT_AWAITABLE: Final[dict[type[ast.AST], str]] = {
    ast.List: "A list",
    ast.ListComp: "A list",
    ast.Tuple: "A tuple",
    ast.GeneratorExp: "A generator",
    ast.Dict: "A dict",
    ast.Set: "A set",
}
_IN_GROUP: Final = "Use `async with ctx.task_group() as group:` and `group.create_task(...)`."
_TOGETHER: Final = "Use `await when_all(...)`."


def check_unawaited(site: Site) -> Iterator[Hit]:
    """Tasks and coroutines that are made and dropped."""
    for node in site.nodes:
        if isinstance(node, ast.Expr):
            yield from (Hit(each, "HF301", f"`{_called(each)}()`") for each in _dropped(site, node.value))
            yield from _coroutine(site, node.value)
        match node:
            case (
                ast.Assign(targets=[ast.Name() as target], value=ast.Call(func=func))
                | ast.AnnAssign(target=ast.Name() as target, value=ast.Call(func=func))
            ) if site.dotted(func) in _AWAITABLE and not _is_used(site, target):
                yield Hit(target, "HF302", f"`{target.id}`")
            case _:
                pass


def _dropped(site: Site, node: ast.expr) -> Iterator[ast.Call]:
    """Yield the tasks that an expression of its own makes."""
    match node:
        case ast.Call() if site.dotted(node.func) in _AWAITABLE:
            yield node
        case ast.IfExp():
            yield from _dropped(site, node.body)
            yield from _dropped(site, node.orelse)
        case ast.ListComp() | ast.SetComp():
            yield from _dropped(site, node.elt)
        case _:
            return


def _coroutine(site: Site, node: ast.expr) -> Iterator[Hit]:
    if isinstance(node, ast.Call):
        called = site.resolve(node.func)
        if isinstance(called, LocalFunction) and site.roles.of(called.node) in (None, "orchestrator"):
            is_plain = not called.node.decorator_list or site.roles.of(called.node) is not None
            if is_plain and (isinstance(called.node, ast.AsyncFunctionDef) or is_generator(called.node)):
                yield Hit(node, "HF303", f"`{called.node.name}(...)`")


def _is_used(site: Site, target: ast.Name) -> bool:
    if target.id.startswith("_"):
        return True
    scope = site.module.scope_of[target]
    if target.id in scope.elsewhere or scope.is_class or scope.parent is None:
        return True
    uses = (each for each in site.nodes if isinstance(each, ast.Name) and each.id == target.id)
    return any(isinstance(each.ctx, ast.Load) for each in uses)


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func) if isinstance(call.func, ast.Name | ast.Attribute) else "a call"


def check_awaits(site: Site) -> Iterator[Hit]:
    """Awaiting what is no durable task."""
    is_generator_body = site.is_orchestrator and is_generator(site.reached.node)
    for node in site.nodes:
        if isinstance(node, ast.Await):
            yield from _awaited(site, node.value)
        elif isinstance(node, ast.Yield) and node.value is not None and is_generator_body:
            if site.function_of(node) is site.reached.node:
                yield from _awaited(site, node.value)
                yield from _coroutine(site, node.value)
        elif isinstance(node, ast.Call) and site.dotted(node.func) in _COMBINATIONS:
            yield from (hit for each in node.args for hit in _combined(site, each))
        elif isinstance(node, ast.AsyncWith):
            yield from (hit for item in node.items for hit in _awaited(site, item.context_expr))
        elif isinstance(node, ast.AsyncFor):
            yield from _awaited(site, node.iter)


def _awaited(site: Site, value: ast.expr) -> Iterator[Hit]:
    kind = _NOT_AWAITABLE.get(type(value))
    if kind is not None:
        yield Hit(value, "HF206", kind, _TOGETHER)
        return
    dotted = site.dotted(value)
    is_ours = not dotted or dotted.startswith("holdfast.") or forbidden(dotted.removesuffix("()")) is not None
    if not is_ours and not _comes_from_caller(site, value):
        yield Hit(value, "HF206", f"`{dotted.replace('()', '(...)')}`")


def _combined(site: Site, node: ast.expr) -> Iterator[Hit]:
    """Coroutines among what is combined."""
    match node:
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            yield from (hit for each in parts for hit in _combined(site, each))
        case ast.ListComp(elt=part) | ast.GeneratorExp(elt=part):
            yield from _combined(site, part)
        case ast.Call() if any(_coroutine(site, node)):
            yield Hit(node, "HF206", f"`{_called(node)}(...)`", _IN_GROUP)
        case _:
            return


def _comes_from_caller(site: Site, value: ast.expr) -> bool:
    """Whether the context goes in, or the object was handed in: then it may well make durable tasks."""
    for node in ast.walk(value):
        if isinstance(node, ast.Name):
            scope = site.module.scope_of.get(node)
            owner = scope.owner(node.id) if scope else None
            bound = owner.bindings.get(node.id, []) if owner else []
            if site.dotted(node) == CONTEXT or any(isinstance(each, Parameter) for each in bound):
                return True
            values = [each.value for each in bound if isinstance(each, Assigned) and each.value is not None]
            if any(isinstance(part, ast.Name) and site.dotted(part) == CONTEXT for v in values for part in ast.walk(v)):
                return True
    return False


def check_asking(site: Site) -> Iterator[Hit]:
    """What is asked for with the wrong arguments, by an unknown name, or only while it replays or does not."""
    for call in site.calls:
        dotted = site.dotted(call.func)
        most = _POSITIONAL_MAX.get(dotted)
        is_plain = not any(isinstance(each, ast.Starred) for each in call.args)
        if most is not None and len(call.args) > most and is_plain:
            yield Hit(call.args[most], "HF307", f"`{_called(call)}()`")
        if dotted in _AWAITABLE | _ONE_WAY and _depends_on_replay(site, call):
            yield Hit(call, "HF110", f"`{_called(call)}()`")
        if dotted in _KINDS:
            yield from _unknown(site, call, _KINDS[dotted])


def _depends_on_replay(site: Site, node: ast.AST) -> bool:
    if is_guarded(site, node):
        return True
    inner: ast.AST = node
    for outer in site.module.ancestors(node):
        if isinstance(outer, ast.If | ast.IfExp | ast.While) and inner is not outer.test:
            attributes = (each for each in ast.walk(outer.test) if isinstance(each, ast.Attribute))
            if any(dotted_name(site.resolve(each)) == f"{CONTEXT}.is_replaying" for each in attributes):
                return True
        inner = outer
    return False


def _unknown(site: Site, call: ast.Call, kind: str) -> Iterator[Hit]:
    if not site.apps_are_known or not call.args or not isinstance(call.args[0], ast.Constant):
        return
    name = call.args[0].value
    known = site.roles.names(kind)
    if isinstance(name, str) and None not in known and name.casefold() not in known and "::" not in name:
        yield Hit(call.args[0], "HF402", f"The {kind} {name!r}")
