"""What an expression stands for: the dotted name of something imported, or a function or class that was read."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable
from typing import Final, Protocol

from holdfast.lint.scopes import Assigned, Binding, Defined, Function, Imported, Parameter, Scope
from holdfast.lint.source import Module, UnreadableError, parse
from holdfast.lint.values import (
    CONTEXT,
    External,
    Instance,
    LocalClass,
    LocalFunction,
    LocalModule,
    Value,
    dotted_name,
    is_set,
    same,
)

_BUILTINS: Final = frozenset(dir(builtins))
_PRIVATE_PLACE: Final = re.compile(r"^holdfast\.(?:[a-z_]+\.)*(?=[A-Z]|\w+_context$|when_a|race$|select$)")
_SET_TYPES: Final = frozenset(
    {
        "collections.abc.MutableSet",
        "collections.abc.Set",
        "frozenset",
        "set",
        "typing.AbstractSet",
        "typing.FrozenSet",
        "typing.MutableSet",
        "typing.Set",
    }
)
_SET_METHODS: Final = frozenset({"copy", "difference", "intersection", "symmetric_difference", "union"})
_SET_OPERATORS: Final = (ast.BitAnd, ast.BitOr, ast.BitXor, ast.Sub)
_LITERALS: Final[dict[type[ast.AST], str]] = {
    ast.Dict: "dict()",
    ast.DictComp: "dict()",
    ast.List: "list()",
    ast.ListComp: "list()",
    ast.Set: "set()",
    ast.SetComp: "set()",
}
_PATH_PARTS: Final = frozenset({"absolute", "joinpath", "parent", "with_name", "with_stem", "with_suffix"})
_WRAPPERS: Final = frozenset({"typing.Annotated", "typing.Final", "typing.Optional", "typing.ClassVar"})
_CONTEXT_NAMES: Final = frozenset({"context", "ctx"})


class Files(Protocol):
    """Where imports lead."""

    def find(self, importer: Module, imported: Imported) -> LocalModule | None: ...
    def submodule(self, package: LocalModule, name: str) -> LocalModule | None: ...


class NoFiles:
    """For a source of which nothing else is known: every import leads elsewhere."""

    def find(self, importer: Module, imported: Imported) -> LocalModule | None:
        return None

    def submodule(self, package: LocalModule, name: str) -> LocalModule | None:
        return None


class Resolver:
    """Says what expressions stand for. What it is not sure of it does not know, so that no alarm is false."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._known: dict[ast.AST, Value | None] = {}
        self._open: set[tuple[int, str]] = set()
        self._fields: dict[ast.ClassDef, dict[str, list[tuple[Assigned, Module]]]] = {}
        self.contexts: set[ast.AST] = set()
        """Functions whose first parameter is the context, whatever its name."""

    def resolve(self, module: Module, node: ast.expr) -> Value | None:
        """Return what an expression stands for, or None if that is unknown."""
        if node in self._known:
            return self._known[node]
        self._known[node] = None  # for whoever comes back here on a circle
        try:
            self._known[node] = found = self._resolve(module, node)
        except RecursionError:  # a long way from name to name; then it is not known
            found = None
        return found

    def dotted(self, module: Module, node: ast.expr) -> str:
        """Return the name of something from elsewhere, or an empty text."""
        return dotted_name(self.resolve(module, node))

    def _resolve(self, module: Module, node: ast.expr) -> Value | None:
        match node:
            case ast.Name():
                scope = module.scope_of.get(node)
                return self._name(module, scope, node.id) if scope is not None else None
            case ast.Attribute():
                return self.attribute(self.resolve(module, node.value), node.attr)
            case ast.Call():
                return self._call(module, node)
            case ast.Await(value=value):
                return self._awaited(module, value)
            case ast.IfExp():
                return same((self.resolve(module, node.body), self.resolve(module, node.orelse)))
            case ast.NamedExpr():
                return self.resolve(module, node.value)
            case ast.BinOp():
                return self._operation(module, node)
            case _:
                literal = _LITERALS.get(type(node))
                return External(literal) if literal else None

    # Names

    def named(self, module: Module, scope: Scope, name: str) -> Value | None:
        """Return what a name of a scope stands for."""
        return self._bound(module, scope, name)

    def _name(self, module: Module, scope: Scope, name: str) -> Value | None:
        owner = scope.owner(name)
        if owner is not None:
            return self._bound(module, owner, name)
        if name in _BUILTINS:
            return External(name)
        for star in (star for each in _upwards(scope) for star in each.stars):
            found = self._imported(module, Imported(star.module, name, star.level))
            if found is not None:
                return found
        return None

    def _bound(self, module: Module, scope: Scope, name: str) -> Value | None:
        """Return what a name of a scope stands for, if all that is bound to it agrees."""
        key = (id(scope), name)
        if key in self._open:
            return None
        self._open.add(key)
        try:
            bindings = [each for each in scope.bindings.get(name, ()) if not _is_none(each)]
            return same(self._binding(module, scope, each) for each in bindings)
        finally:
            self._open.remove(key)

    def _binding(self, module: Module, scope: Scope, binding: Binding) -> Value | None:
        match binding:
            case Imported():
                return self._imported(module, binding)
            case Defined(node=ast.ClassDef() as node):
                return LocalClass(module, node)
            case Defined(node=ast.FunctionDef() | ast.AsyncFunctionDef() as node):
                return LocalFunction(module, node)
            case Parameter():
                return self._parameter(module, scope, binding)
            case Assigned():
                return self._assigned(module, binding)
            case _:
                return None

    def _assigned(self, module: Module, binding: Assigned) -> Value | None:
        if binding.annotation is not None:
            found = self.annotated(module, binding.annotation)
            if found is not None:
                return found
        return None if binding.value is None else self.resolve(module, binding.value)

    def _parameter(self, module: Module, scope: Scope, parameter: Parameter) -> Value | None:
        if parameter.position == _first(scope) and parameter.function in self.contexts:
            return External(CONTEXT)
        if parameter.annotation is not None:
            return self.annotated(module, parameter.annotation)
        outer = scope.parent
        if parameter.position == 0 and outer is not None and isinstance(outer.node, ast.ClassDef):
            cls = LocalClass(module, outer.node)
            kinds = {each.id for each in _decorators(parameter.function) if isinstance(each, ast.Name)}
            if "staticmethod" not in kinds:
                return cls if "classmethod" in kinds else Instance(cls)
        return External(CONTEXT) if parameter.name in _CONTEXT_NAMES else None

    def _imported(self, module: Module, imported: Imported) -> Value | None:
        found = self.files.find(module, imported)
        if found is not None:
            return found if imported.name is None else self.attribute(found, imported.name)
        if imported.level:
            return None
        dotted = ".".join(part for part in (imported.module, imported.name) if part)
        return External(_PRIVATE_PLACE.sub("holdfast.", dotted))

    # Parts

    def attribute(self, owner: Value | None, name: str) -> Value | None:
        """Return what `owner.name` stands for."""
        match owner:
            case External(dotted="pathlib.Path()") if name in _PATH_PARTS:
                return External("pathlib.Path()" if name == "parent" else f"pathlib.Path().{name}")
            case External(dotted=dotted):
                return External(_PRIVATE_PLACE.sub("holdfast.", f"{dotted}.{name}"))
            case LocalModule(module=module):
                inside = self._bound(module, module.scope, name) if module and name in module.scope.bindings else None
                return inside or self.files.submodule(owner, name)
            case LocalClass():
                return self._member(owner, name)
            case Instance(of=cls):
                return self._member(cls, name)
            case LocalFunction() if name == "function":
                return owner  # of a decorated one, the plain one
            case _:
                return None

    def _member(self, cls: LocalClass, name: str, depth: int = 0) -> Value | None:
        """Return a method or the type of a field, of the class or of what it derives from."""
        scope = cls.module.scope_of[cls.node]
        if any(isinstance(each, Defined) for each in scope.bindings.get(name, ())):
            return self._bound(cls.module, scope, name)
        fields = self.fields(cls).get(name)
        if fields:
            key = (id(cls.node), name)
            if key in self._open:
                return None
            self._open.add(key)
            try:
                return same(self._assigned(module, each) for each, module in fields if not _is_none(each))
            finally:
                self._open.remove(key)
        for base in cls.node.bases if depth < 10 else ():
            parent = self.resolve(cls.module, base)
            found = self._member(parent, name, depth + 1) if isinstance(parent, LocalClass) else None
            if found is not None:
                return found
        return None

    def fields(self, cls: LocalClass) -> dict[str, list[tuple[Assigned, Module]]]:
        """Return what the body of a class and its methods assign to the fields of its objects."""
        if cls.node not in self._fields:
            found: dict[str, list[tuple[Assigned, Module]]] = {}
            for name, bindings in cls.module.scope_of[cls.node].bindings.items():
                found[name] = [(each, cls.module) for each in bindings if isinstance(each, Assigned)]
            for node in ast.walk(cls.node):
                for target, binding in _own_assignments(node):
                    found.setdefault(target, []).append((binding, cls.module))
            self._fields[cls.node] = found
        return self._fields[cls.node]

    def annotated(self, module: Module, annotation: ast.expr) -> Value | None:
        """Return what an annotation says of a value: `Client` becomes `Client()`, an object of the class."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            return self._quoted(module, annotation)
        if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
            sides = [each for each in (annotation.left, annotation.right) if not _is_none_literal(each)]
            return self.annotated(module, sides[0]) if len(sides) == 1 else None
        if isinstance(annotation, ast.Subscript):
            of = dotted_name(self.resolve(module, annotation.value))
            if of in _WRAPPERS:
                inside = annotation.slice
                first = inside.elts[0] if isinstance(inside, ast.Tuple) and inside.elts else inside
                return self.annotated(module, first)
            return self.annotated(module, annotation.value)
        if not isinstance(annotation, ast.Name | ast.Attribute):
            return None
        found = self.resolve(module, annotation)
        if isinstance(found, LocalClass):
            return Instance(found)
        dotted = dotted_name(found)
        if not dotted or dotted in ("typing.Any", "object") or dotted in _WRAPPERS:
            return None
        if dotted.endswith(".OrchestrationContext"):
            return External(CONTEXT)
        return External("set()" if dotted in _SET_TYPES else f"{dotted}()")

    def _quoted(self, module: Module, annotation: ast.Constant) -> Value | None:
        try:
            inside = parse(str(annotation.value).strip(), module.path).body
        except UnreadableError:
            return None
        if len(inside) != 1 or not isinstance(inside[0], ast.Expr) or isinstance(inside[0].value, ast.Constant):
            return None
        for node in ast.walk(inside[0]):  # as if it stood at the top of the module
            module.scope_of.setdefault(node, module.scope)
        return self.annotated(module, inside[0].value)

    # Calls and operators

    def _call(self, module: Module, node: ast.Call) -> Value | None:
        function = self.resolve(module, node.func)
        match (function, node.args):
            case (External(dotted="getattr"), [owned, ast.Constant(value=str() as name), *_]):
                return self.attribute(self.resolve(module, owned), name)
            case _:
                return self._called(function)

    def _called(self, function: Value | None) -> Value | None:
        """Return what a call of something gives."""
        match function:
            case External(dotted=dotted):
                owner, _, method = dotted.rpartition(".")
                if owner in ("set()", "frozenset()"):
                    return External(owner) if method in _SET_METHODS else None
                if owner == "pathlib.Path()" and method in _PATH_PARTS:
                    return External(owner)
                return External(f"{dotted}()")
            case LocalClass():
                return Instance(function)
            case LocalFunction(node=ast.FunctionDef() as called, module=where) if called.returns is not None:
                return self.annotated(where, called.returns)
            case _:
                return None

    def _awaited(self, module: Module, value: ast.expr) -> Value | None:
        if isinstance(value, ast.Call):
            function = self.resolve(module, value.func)
            match function:
                case LocalFunction(node=ast.AsyncFunctionDef() as called, module=where) if called.returns is not None:
                    return self.annotated(where, called.returns)
                case _:
                    return None
        return None  # what a call of something else gives is for it to say

    def _operation(self, module: Module, node: ast.BinOp) -> Value | None:
        left, right = self.resolve(module, node.left), self.resolve(module, node.right)
        if isinstance(node.op, ast.Div) and dotted_name(left) == "pathlib.Path()":
            return left
        if isinstance(node.op, _SET_OPERATORS):
            keys = isinstance(node.left, ast.Call) and isinstance(node.left.func, ast.Attribute)
            if is_set(left) or is_set(right) or (keys and _is_keys(node.left)):
                return External("set()")
        return None


def _first(scope: Scope) -> int:
    """The position of the first parameter that is not `self`."""
    return 1 if scope.parent is not None and scope.parent.is_class else 0


def _decorators(function: Function | ast.Lambda) -> list[ast.expr]:
    return [] if isinstance(function, ast.Lambda) else function.decorator_list


def _is_keys(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"


def _is_none_literal(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_none(binding: Binding) -> bool:
    return isinstance(binding, Assigned) and binding.annotation is None and _is_none_literal(binding.value)


def _upwards(scope: Scope | None) -> Iterable[Scope]:
    while scope is not None:
        yield scope
        scope = scope.parent


def _own_assignments(node: ast.AST) -> Iterable[tuple[str, Assigned]]:
    """Yield `self.name = value`."""
    if isinstance(node, ast.Assign):
        targets, binding = node.targets, Assigned(node.value)
    elif isinstance(node, ast.AnnAssign):
        targets, binding = [node.target], Assigned(node.value, node.annotation)
    else:
        return
    for target in targets:
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
            yield target.attr, binding
