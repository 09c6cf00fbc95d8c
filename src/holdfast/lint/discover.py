"""Which functions are orchestrators, and which they reach: by calls, as callbacks, as handlers."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from holdfast.lint.names import Resolver
from holdfast.lint.scopes import Function, Scope
from holdfast.lint.source import Module
from holdfast.lint.values import CONTEXT, Instance, LocalClass, LocalFunction, Value, dotted_name

ROLES: Final = frozenset({"activity", "entity", "orchestrator", "route", "token_source"})
_WITH: Final = ("__enter__", "__exit__", "__aenter__", "__aexit__")
REFERENCES: Final = {
    "call_activity": 1,
    "call_sub_orchestrator": 1,
    "start_orchestration": 1,
    "map": 1,
    "call_entity": 2,
    "signal_entity": 2,
    "add_compensation": 1,
}
"""So many first arguments of these methods name what is to run elsewhere."""


class Registered(msgspec.Struct, frozen=True):
    """A function of an app; `name` is None if it is computed."""

    role: str
    name: str | None


class Reached(msgspec.Struct, frozen=True, eq=False):
    """A function that runs as orchestrator code; `chain` leads from the orchestrator to it."""

    module: Module
    node: Function
    chain: tuple[str, ...]
    nodes: tuple[ast.AST, ...]
    """All that runs when it does, nested functions included: no annotations, no decorators."""


class Roles:
    """What the functions and classes of some modules are registered as."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._of: dict[ast.AST, Registered] = {}
        self._read: set[str] = set()

    def add(self, module: Module) -> None:
        """Find what a module registers, once."""
        if module.path in self._read:
            return
        self._read.add(module.path)
        for node in module.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                for decorator in node.decorator_list:
                    self._register(node, decorator, node.name)
            elif isinstance(node, ast.Call) and node.args and _registering(node.func):
                found = self._resolver.resolve(module, node.args[0])
                if isinstance(found, LocalFunction | LocalClass):
                    self._register(found.node, node.func, found.node.name)

    def _register(self, node: ast.AST, decorator: ast.expr, name: str) -> None:
        found = _registering(decorator)
        if found is None:
            return
        role, options = found
        if "name" in options:
            given = options["name"]
            chosen = given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else None
        else:
            chosen = name
        self._of[node] = Registered(role, chosen)
        if role == "orchestrator":
            self._resolver.contexts.add(node)

    def of(self, node: ast.AST) -> str | None:
        registered = self._of.get(node)
        return registered.role if registered else None

    def names(self, role: str) -> set[str | None]:
        """The names that are registered for a role, in lower case; None stands for one that is computed."""
        found = (each.name for each in self._of.values() if each.role == role)
        return {name and name.casefold() for name in found}

    def is_elsewhere(self, function: LocalFunction) -> bool:
        """Whether a function is run by the host and not by whoever refers to it: an activity, an entity's operation."""
        if self.of(function.node) is not None:
            return True
        parent = function.module.parents.get(function.node)
        return isinstance(parent, ast.ClassDef) and self._is_entity(LocalClass(function.module, parent))

    def _is_entity(self, cls: LocalClass, depth: int = 0) -> bool:
        if self.of(cls.node) == "entity":
            return True
        bases = [self._resolver.resolve(cls.module, base) for base in cls.node.bases]
        if any(dotted_name(base) == "holdfast.Entity" for base in bases):
            return True
        return depth < 10 and any(isinstance(base, LocalClass) and self._is_entity(base, depth + 1) for base in bases)


def _registering(decorator: ast.expr) -> tuple[str, dict[str, ast.expr]] | None:
    """Return the role that `x.activity` or `x.activity(...)` gives, and the options."""
    options: dict[str, ast.expr] = {}
    if isinstance(decorator, ast.Call):
        options = {each.arg: each.value for each in decorator.keywords if each.arg}
        decorator = decorator.func
    if isinstance(decorator, ast.Attribute) and decorator.attr in ROLES:
        return decorator.attr, options
    return None


class Reach:
    """Walks from the orchestrators to all functions that run as a part of them."""

    def __init__(self, resolver: Resolver, roles: Roles) -> None:
        self._resolver = resolver
        self._roles = roles
        self._found: dict[ast.AST, Reached] = {}

    def from_orchestrators(self, modules: Iterable[Module]) -> list[Reached]:
        """Return what is reached, each function once, by a shortest way."""
        waiting: deque[tuple[Module, Function, tuple[str, ...]]] = deque()
        for module in modules:
            self._roles.add(module)
            orchestrators = [node for node in module.functions if self._roles.of(node) == "orchestrator"]
            waiting.extend((module, node, (node.name,)) for node in orchestrators)
        while waiting:
            module, node, chain = waiting.popleft()
            if node in self._found or self._is_part_of_found(module, node):
                continue
            self._roles.add(module)
            reached = self._found[node] = Reached(module, node, chain, tuple(self._running(node)))
            for function in self._callees(reached):
                self._roles.add(function.module)
                if not self._roles.is_elsewhere(function):
                    waiting.append((function.module, function.node, (*chain, function.node.name)))
        return list(self._found.values())

    def _is_part_of_found(self, module: Module, node: Function) -> bool:
        """Whether a function is nested in one that is checked: then it is checked with that."""
        return self._roles.of(node) is None and any(each in self._found for each in module.ancestors(node))

    def _running(self, function: Function) -> Iterator[ast.AST]:
        """Yield the nodes that run, in the order of the source."""
        defaults = [each for each in (*function.args.defaults, *function.args.kw_defaults) if each is not None]
        waiting: deque[ast.AST] = deque([*defaults, *function.body])
        while waiting:
            node = waiting.popleft()
            yield node
            waiting.extendleft(reversed(list(self._parts(node))))

    def _parts(self, node: ast.AST) -> Iterator[ast.AST]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if self._roles.of(node) is None:
                yield from (each for each in (*node.args.defaults, *node.args.kw_defaults) if each is not None)
                yield from node.body
        elif isinstance(node, ast.ClassDef):
            yield from node.body if self._roles.of(node) is None else ()
        elif isinstance(node, ast.AnnAssign):
            yield node.target
            if node.value is not None:
                yield node.value
        else:
            yield from ast.iter_child_nodes(node)

    def _callees(self, reached: Reached) -> Iterator[LocalFunction]:
        module = reached.module
        elsewhere = set(named_elsewhere(self._resolver, module, reached.nodes))
        for node in reached.nodes:
            if isinstance(node, ast.Call):
                yield from self._made(self._resolver.resolve(module, node.func))
            elif isinstance(node, ast.withitem):
                yield from self._methods(self._resolver.resolve(module, node.context_expr), *_WITH)
            elif isinstance(node, ast.Name | ast.Attribute) and node not in elsewhere:
                found = self._resolver.resolve(module, node)
                if isinstance(found, LocalFunction) and isinstance(node.ctx, ast.Load):
                    yield found

    def _made(self, called: Value | None) -> Iterator[LocalFunction]:
        """Yield what runs when an object is made, or called."""
        match called:
            case LocalClass():
                yield from self._methods(called, "__new__", "__init__", "__post_init__")
            case Instance():
                yield from self._methods(called, "__call__")
            case _:
                return

    def _methods(self, owner: Value | None, *names: str) -> Iterator[LocalFunction]:
        if isinstance(owner, Instance | LocalClass):
            found = (self._resolver.attribute(owner, name) for name in names)
            yield from (each for each in found if isinstance(each, LocalFunction))


def named_elsewhere(resolver: Resolver, module: Module, nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield what is only named, to be run elsewhere: `ship` in `ctx.call_activity(ship)`."""
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in REFERENCES:
            owner = dotted_name(resolver.resolve(module, node.func.value))
            if owner in (CONTEXT, f"{CONTEXT}.saga()") or node.func.attr != "map":
                yield from node.args[: REFERENCES[node.func.attr]]


def function_of(module: Module, node: ast.AST) -> Function | ast.Lambda | None:
    """Return the function that a node stands in."""
    for each in module.ancestors(node):
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return each
    return None


def owner_scope(module: Module, name: ast.Name) -> Scope | None:
    """Return the scope that a name belongs to."""
    scope = module.scope_of.get(name)
    return scope.owner(name.id) if scope else None
