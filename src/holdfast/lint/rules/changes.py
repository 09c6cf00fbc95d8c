"""What code changes that is not its own: names of modules, of classes, and of functions around it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from holdfast.lint.discover import owner_scope
from holdfast.lint.findings import words
from holdfast.lint.names import Resolver
from holdfast.lint.scopes import Assigned, Imported, Scope
from holdfast.lint.source import Module
from holdfast.lint.values import Instance, LocalFunction, LocalModule, dotted_name

Variable: TypeAlias = tuple[Scope, str]
"""A name, and the scope that binds it."""

COLLECTIONS: Final = frozenset(
    {
        "bytearray()",
        "collections.Counter()",
        "collections.OrderedDict()",
        "collections.abc.MutableMapping()",
        "collections.abc.MutableSequence()",
        "collections.abc.MutableSet()",
        "collections.defaultdict()",
        "collections.deque()",
        "dict()",
        "list()",
        "set()",
        "typing.Dict()",
        "typing.List()",
    }
)
_MUTATING: Final = words(
    """
    add append appendleft clear difference_update discard extend extendleft insert intersection_update move_to_end
    pop popitem popleft remove reverse rotate setdefault sort subtract symmetric_difference_update update
    """
)


class Changes:
    """What functions of the program change outside of themselves, and where."""

    def __init__(self, resolver: Resolver, modules: Iterable[Module]) -> None:
        self._resolver = resolver
        self._places: dict[Variable, tuple[str, int]] = {}
        for module in modules:
            for node in module.nodes:
                variable = self.changed_by(module, node)
                if variable is not None and _is_in_function(module, node):
                    line = getattr(node, "lineno", 1)
                    self._places.setdefault(variable, (module.path, line))

    def place(self, variable: Variable) -> tuple[str, int] | None:
        """Where a function changes a variable, if one does."""
        return self._places.get(variable)

    def changed_by(self, module: Module, node: ast.AST) -> Variable | None:
        """Return the variable that a node changes; a local one, too."""
        match node:
            case ast.Name(ctx=ast.Store() | ast.Del()):
                scope = module.scope_of.get(node)
                is_given_away = scope is not None and node.id in scope.elsewhere
                return self.variable(module, node) if is_given_away else None
            case ast.Attribute(ctx=ast.Store() | ast.Del(), value=value):
                if isinstance(self._resolver.resolve(module, value), LocalModule):
                    return self.variable(module, node)
                return self.variable(module, _root(value))
            case ast.Subscript(ctx=ast.Store() | ast.Del(), value=value):
                return self._rooted(module, value)
            case ast.Call(func=ast.Attribute(attr=attr, value=value) as func):
                is_change = attr in _MUTATING and any(self._is_mutable(module, part) for part in _chain(value))
                return self._rooted(module, value) if is_change or self._mutates_self(module, func) else None
            case ast.Call(func=ast.Name(id="next"), args=[first, *_]):
                return self._rooted(module, first)
            case _:
                return None

    def _rooted(self, module: Module, node: ast.expr) -> Variable | None:
        for part in _chain(node):
            if isinstance(part, ast.Attribute) and isinstance(self._resolver.resolve(module, part.value), LocalModule):
                return self.variable(module, part)
        return self.variable(module, _root(node))

    def _is_mutable(self, module: Module, node: ast.expr) -> bool:
        return dotted_name(self._resolver.resolve(module, node)) in COLLECTIONS

    def _mutates_self(self, module: Module, func: ast.Attribute) -> bool:
        """Whether a method that was read changes a field of its object."""
        owner, method = self._resolver.resolve(module, func.value), self._resolver.resolve(module, func)
        if not isinstance(owner, Instance) or not isinstance(method, LocalFunction) or not method.node.args.args:
            return False
        me = method.node.args.args[0].arg
        for node in ast.walk(method.node):
            if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                root = _root(node)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATING:
                root = _root(node.func.value)
            else:
                continue
            if isinstance(root, ast.Name) and root.id == me:
                return True
        return False

    def variable(self, module: Module, node: ast.expr | None) -> Variable | None:
        """Return the variable that a name stands for, where it was first bound; imports are followed."""
        if isinstance(node, ast.Attribute):
            owner = self._resolver.resolve(module, node.value)
            found = owner.module if isinstance(owner, LocalModule) else None
            return None if found is None else self._first_bound(found, found.scope, node.attr)
        if not isinstance(node, ast.Name):
            return None
        scope = owner_scope(module, node)
        return None if scope is None else self._first_bound(module, scope, node.id)

    def _first_bound(self, module: Module, scope: Scope, name: str) -> Variable:
        seen: set[Variable] = set()
        while (scope, name) not in seen:
            seen.add((scope, name))
            match scope.bindings.get(name):
                case [Imported(name=str() as original) as imported]:
                    found = self._resolver.files.find(module, imported)
                    if found is None or found.module is None:
                        break
                    module, scope, name = found.module, found.module.scope, original
                case _:
                    break
        return scope, name


def is_assigned(variable: Variable) -> bool:
    """Whether a variable gets its value by an assignment, so that it is no function, class or import."""
    scope, name = variable
    return any(isinstance(each, Assigned) for each in scope.bindings.get(name, ()))


def _chain(node: ast.expr) -> Iterator[ast.expr]:
    """Yield `a.b[c]`, `a.b` and `a`."""
    yield node
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
        yield node


def _root(node: ast.expr) -> ast.expr:
    return list(_chain(node))[-1]


def _is_in_function(module: Module, node: ast.AST) -> bool:
    return any(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) for each in module.ancestors(node))
