"""Which names a piece of source binds where, and as what: Python's rules of scope, as far as reading alone can tell."""

from __future__ import annotations

import ast
from typing import TypeAlias

import msgspec

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Scoped: TypeAlias = ast.Module | Function | ast.Lambda | ast.ClassDef | ast.expr


class Imported(msgspec.Struct, frozen=True):
    """`from module import name`; without a name the module itself. `level` counts the dots before it."""

    module: str
    name: str | None
    level: int


class Defined(msgspec.Struct, frozen=True, eq=False):
    """A `def` or a `class`."""

    node: Function | ast.ClassDef


class Assigned(msgspec.Struct, frozen=True, eq=False):
    """A name that gets a value; both are None if nothing is known of it."""

    value: ast.expr | None = None
    annotation: ast.expr | None = None


class Parameter(msgspec.Struct, frozen=True, eq=False):
    """A parameter, counted among those that are given by position; -1 if it is not one of them."""

    function: Function | ast.Lambda
    name: str
    position: int
    annotation: ast.expr | None


Binding: TypeAlias = Imported | Defined | Assigned | Parameter


class Scope:
    """The names that one module, class, function or comprehension binds."""

    def __init__(self, node: Scoped, parent: Scope | None) -> None:
        self.node = node
        self.parent = parent
        self.bindings: dict[str, list[Binding]] = {}
        self.elsewhere: dict[str, type[ast.Global | ast.Nonlocal]] = {}
        """Names that a `global` or `nonlocal` statement gives to another scope."""
        self.stars: list[Imported] = []

    @property
    def is_class(self) -> bool:
        return isinstance(self.node, ast.ClassDef)

    @property
    def module(self) -> Scope:
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        return scope

    def owner(self, name: str) -> Scope | None:
        """Return the scope that a name belongs to when it is used here; None for built-in and unknown ones."""
        scope: Scope | None = self
        while scope is not None:
            if scope.elsewhere.get(name) is ast.Global:
                scope = scope.module
            is_hidden = scope.is_class and scope is not self
            if name in scope.bindings and not is_hidden:
                return scope
            scope = scope.parent
        return None


def is_inside(node: ast.AST, outer: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether a node is another one or a part of it."""
    current: ast.AST | None = node
    while current is not None and current is not outer:
        current = parents.get(current)
    return current is outer


class ScopeBuilder(ast.NodeVisitor):
    """Reads a module once, and notes the scope of each name and the parent of each node."""

    def __init__(self, tree: ast.Module) -> None:
        self.top = self._scope = Scope(tree, None)
        self.scope_of: dict[ast.AST, Scope] = {}
        """By name where it is used; by function or class, the scope that it makes."""
        self.parents: dict[ast.AST, ast.AST] = {}
        self._visit_all(tree, tree.body)

    def _visit_all(self, parent: ast.AST, nodes: list[ast.stmt] | list[ast.expr]) -> None:
        for node in nodes:
            self.parents[node] = parent
            self.visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            self.parents[child] = node
            self.visit(child)

    def _bind(self, name: str, binding: Binding) -> None:
        """Bind a name where it belongs; what is `nonlocal` is bound where it was made."""
        where = self._scope.elsewhere.get(name)
        scope = self._scope.module if where is ast.Global else self._scope
        if where is not ast.Nonlocal:
            scope.bindings.setdefault(name, []).append(binding)

    def _within(self, node: Scoped, body: list[ast.stmt] | list[ast.expr]) -> Scope:
        outer, self._scope = self._scope, Scope(node, self._scope)
        inner = self._scope
        self.scope_of[node] = inner
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._declarations(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            self._parameters(node)
        self._visit_all(node, body)
        self._scope = outer
        return inner

    def _declarations(self, function: Function) -> None:
        """Find `global` and `nonlocal` before anything is bound."""
        waiting: list[ast.AST] = [*function.body]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Global | ast.Nonlocal):
                self._scope.elsewhere |= dict.fromkeys(node.names, type(node))
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.expr):
                waiting.extend(ast.iter_child_nodes(node))

    def _parameters(self, function: Function | ast.Lambda) -> None:
        arguments = function.args
        for position, each in enumerate([*arguments.posonlyargs, *arguments.args]):
            self._bind(each.arg, Parameter(function, each.arg, position, each.annotation))
        for each in arguments.kwonlyargs:
            self._bind(each.arg, Parameter(function, each.arg, -1, each.annotation))
        for each in (arguments.vararg, arguments.kwarg):
            if each is not None:
                self._bind(each.arg, Assigned())

    # Scopes

    def _visit_function(self, node: Function) -> None:
        self._bind(node.name, Defined(node))
        self._visit_all(node, node.decorator_list)
        self._outside(node, node.args)
        if node.returns is not None:
            self._outside(node, node.returns)
        self._within(node, node.body)

    visit_FunctionDef = _visit_function
    visit_AsyncFunctionDef = _visit_function

    def _outside(self, parent: ast.AST, node: ast.AST) -> None:
        self.parents[node] = parent
        self.visit(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._outside(node, node.args)
        self._within(node, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind(node.name, Defined(node))
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self._outside(node, part)
        self._within(node, node.body)

    def _visit_comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        """Only the first iterable is evaluated outside."""
        first = node.generators[0]
        self.parents[first] = node
        self._outside(first, first.iter)
        outer, self._scope = self._scope, Scope(node, self._scope)
        for generator in node.generators:
            self.parents[generator] = node
            self._target(generator.target, Assigned())
            parts = [generator.target, *generator.ifs] if generator is first else [generator.target, generator.iter]
            self._visit_all(generator, parts if generator is first else [*parts, *generator.ifs])
        elements = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._visit_all(node, elements)
        self._scope = outer

    visit_ListComp = _visit_comprehension
    visit_SetComp = _visit_comprehension
    visit_GeneratorExp = _visit_comprehension
    visit_DictComp = _visit_comprehension

    # Bindings

    def visit_Name(self, node: ast.Name) -> None:
        self.scope_of[node] = self._scope

    def _target(self, target: ast.expr, binding: Assigned) -> None:
        """Bind what stands left of an equals sign; the parts of a tuple get the parts of another, if there is one."""
        if isinstance(target, ast.Name):
            self._bind(target.id, binding)
        elif isinstance(target, ast.Starred):
            self._target(target.value, Assigned())
        elif isinstance(target, ast.Tuple | ast.List):
            value = binding.value
            is_pairwise = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts)
            values = (
                value.elts if is_pairwise and isinstance(value, ast.Tuple | ast.List) else [None] * len(target.elts)
            )
            for part, single in zip(target.elts, values, strict=True):
                self._target(part, Assigned(single))

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._target(target, Assigned(node.value))
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._target(node.target, Assigned(node.value, node.annotation))
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name) and self._scope.owner(node.target.id) is not self._scope:
            self._target(node.target, Assigned())
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        scope = self._scope
        while isinstance(scope.node, ast.expr) and not isinstance(scope.node, ast.Lambda) and scope.parent is not None:
            scope = scope.parent
        outer, self._scope = self._scope, scope
        self._target(node.target, Assigned(node.value))
        self._scope = outer
        self.generic_visit(node)

    def _visit_for(self, node: ast.For | ast.AsyncFor) -> None:
        self._target(node.target, Assigned())
        self.generic_visit(node)

    visit_For = _visit_for
    visit_AsyncFor = _visit_for

    def visit_withitem(self, node: ast.withitem) -> None:
        if node.optional_vars is not None:
            self._target(node.optional_vars, Assigned(node.context_expr))
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name is not None:
            self._bind(node.name, Assigned())
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        if node.name is not None:
            self._bind(node.name, Assigned())
        self.generic_visit(node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name is not None:
            self._bind(node.name, Assigned())

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest is not None:
            self._bind(node.rest, Assigned())
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for each in node.names:
            whole = each.name if each.asname else each.name.partition(".")[0]  # `import os.path` binds `os`
            self._bind(each.asname or whole, Imported(whole, None, 0))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for each in node.names:
            imported = Imported(node.module or "", each.name, node.level)
            if each.name == "*":
                self._scope.stars.append(imported)
            else:
                self._bind(each.asname or each.name, imported)
