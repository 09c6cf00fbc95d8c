"""State that outlives an instance: what modules, classes and functions around the orchestrator hold."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from holdfast.lint.rules.changes import COLLECTIONS, Variable, is_assigned
from holdfast.lint.rules.forbidden import forbidden
from holdfast.lint.rules.site import Hit, Site
from holdfast.lint.scopes import Assigned, is_inside
from holdfast.lint.values import External, LocalModule, dotted_name


def check_state(site: Site) -> Iterator[Hit]:
    changed: set[Variable] = set()
    seen: set[Variable] = set()
    for node in site.nodes:
        variable = site.changes.changed_by(site.module, node)
        if variable is None or not isinstance(node, ast.expr):
            continue
        if _is_outside(site, variable) and not _is_environment(site, variable):
            changed.add(variable)
            yield Hit(node, "HF108", f"`{variable[1]}`")
    for node in site.nodes:
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            variable = _read(site, node)
            if variable is not None and variable not in changed and variable not in seen:
                seen.add(variable)
                yield from _of_read(site, node, variable)


def _read(site: Site, node: ast.Name | ast.Attribute) -> Variable | None:
    """Return the variable of a module that a node reads, if it is one that was assigned."""
    is_of_module = isinstance(node, ast.Attribute) and isinstance(site.resolve(node.value), LocalModule)
    if isinstance(node, ast.Attribute) and not is_of_module:
        return None
    variable = site.changes.variable(site.module, node)
    return variable if variable is not None and variable[0].parent is None and is_assigned(variable) else None


def _of_read(site: Site, node: ast.expr, variable: Variable) -> Iterator[Hit]:
    place = site.changes.place(variable)
    scope, name = variable
    if place is not None:
        path, line = place
        where = f"line {line}" if path == site.module.path else f"{path}:{line}"
        yield Hit(node, "HF107", f"`{name}` (see {where})")
    elif name.islower() and not name.startswith("__"):
        values = [each.value for each in scope.bindings[name] if isinstance(each, Assigned) and each.value is not None]
        if values and all(_is_collection(site, each) for each in values):
            yield Hit(node, "HF403", f"`{name}`")


def _is_collection(site: Site, value: ast.expr) -> bool:
    if isinstance(value, ast.Call) and not isinstance(value.func, ast.Name | ast.Attribute):
        return False
    return dotted_name(site.resolve(value)) in COLLECTIONS


def _is_outside(site: Site, variable: Variable) -> bool:
    scope, name = variable
    if scope.parent is None:
        return True
    if scope.is_class:
        return False
    return name in scope.bindings and not is_inside(scope.node, site.reached.node, site.module.parents)


def _is_environment(site: Site, variable: Variable) -> bool:
    """Whether what is changed belongs to something that has a rule of its own."""
    scope, name = variable
    found = site.resolver.named(site.module, scope, name) if scope.module is site.module.scope else None
    return isinstance(found, External) and (found.dotted in ("os", "sys") or forbidden(found.dotted) is not None)


def check_defaults(site: Site) -> Iterator[Hit]:
    functions = [site.reached.node, *(each for each in site.nodes if isinstance(each, ast.FunctionDef))]
    functions += [each for each in site.nodes if isinstance(each, ast.AsyncFunctionDef)]
    for function in functions:
        if site.roles.of(function) in (None, "orchestrator"):
            for default in (*function.args.defaults, *function.args.kw_defaults):
                if default is not None and dotted_name(site.resolve(default)) in COLLECTIONS:
                    yield Hit(default, "HF109", f"This default of `{function.name}`")
