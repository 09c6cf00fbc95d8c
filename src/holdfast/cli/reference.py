"""The page of all commands, `docs/reference/cli.md`: the parts between its marks are made from the commands themselves.

`python -m holdfast.cli.reference docs/reference/cli.md` brings a page up to date.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum, EnumType
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final, Literal, cast, get_args, get_origin, get_type_hints

import msgspec
import typer
from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

from holdfast.cli.errors import EXIT_CODES
from holdfast.cli.main import commands

_MARKED: Final = re.compile(r"<!-- made: (?P<what>[^>]*?) -->\n.*?<!-- end -->\n", re.DOTALL)
_SHARED: Final = {"Connection": "the-host", "Which instances": "which-instances"}
"""Groups of options that many commands have, and the sections that describe them once."""
_COLUMNS_MAX: Final = 120
_METAVARS: Final[Mapping[object, str]] = {int: "N", Path: "PATH"}


class _Param(msgspec.Struct, frozen=True):
    """One parameter of a command, as its function declares it."""

    name: str
    kind: object
    """What a single value is."""
    choices: tuple[str, ...]
    is_list: bool
    is_required: bool
    default: object
    info: ParameterInfo

    @property
    def is_flag(self) -> bool:
        return self.kind is bool

    @property
    def panel(self) -> str | None:
        found = self.info.rich_help_panel
        return found if found in _SHARED else None


class _Command(msgspec.Struct, frozen=True):
    help: str
    params: list[_Param]


def updated(page: str) -> str:
    """Return a page with its marked parts made anew, and with parts for the commands that it lacks."""
    parts = _parts()

    def made(found: re.Match[str]) -> str:
        what = found["what"]
        return _marked(what, parts[what]) if what in parts else ""

    page = _MARKED.sub(made, page)
    there = {found["what"] for found in _MARKED.finditer(page)}
    return page + "".join(f"\n{_marked(what, text)}" for what, text in parts.items() if what not in there)


def _marked(what: str, text: str) -> str:
    return f"<!-- made: {what} -->\n{text}<!-- end -->\n"


def _parts() -> Mapping[str, str]:
    all_commands = dict(_commands())
    return {
        "exit codes": _table(("Exit code", "Meaning"), ((str(code), text) for code, text in EXIT_CODES.items())),
        "the host": _options(all_commands["list"], "Connection"),
        "which instances": _options(all_commands["list"], "Which instances"),
        **{name: _section(name, command) for name, command in all_commands.items()},
    }


def _commands() -> Iterator[tuple[str, _Command]]:
    """Return all commands by their full names, those of groups after their groups' names."""
    yield from _commands_of(commands, "")
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            yield from _commands_of(group.typer_instance, f"{group.name} ")


def _commands_of(group: typer.Typer, prefix: str) -> Iterator[tuple[str, _Command]]:
    for each in group.registered_commands:
        if each.callback is not None:
            function = cast(Callable[..., None], each.callback)
            name = each.name or function.__name__
            yield f"{prefix}{name}", _Command(inspect.cleandoc(function.__doc__ or ""), list(_params(function)))


def _params(function: Callable[..., None]) -> Iterator[_Param]:
    hints: dict[str, Any] = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if get_origin(hint) is not Annotated:
            continue
        declared, info = get_args(hint)[:2]
        kind = _without_none(declared)
        is_list = get_origin(kind) is list
        if is_list:
            kind = get_args(kind)[0]
        is_required = parameter.default is inspect.Parameter.empty
        default: object = None if is_required else parameter.default
        yield _Param(name, kind, _choices(kind), is_list, is_required, default, info)


def _choices(kind: Any) -> tuple[str, ...]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    members = cast(Iterable[Enum], kind) if isinstance(kind, EnumType) else ()
    return tuple(str(each.value) for each in members)


def _without_none(declared: Any) -> Any:
    present = [each for each in get_args(declared) if each is not NoneType]
    return present[0] if len(present) == 1 and NoneType in get_args(declared) else declared


def _section(name: str, command: _Command) -> str:
    arguments = [_argument(each) for each in command.params if isinstance(each.info, ArgumentInfo)]
    heading = " ".join(["holdfast", name, *arguments])
    shared = {each.panel for each in command.params}
    also = [f"[{panel.lower()}](#{anchor})" for panel, anchor in _SHARED.items() if panel in shared]
    besides = f"\nBesides: the options for {' and for '.join(also)}.\n" if also else ""
    table = _options(command, None)
    return f"## `{heading}`\n\n{_wrapped(command.help)}\n" + (f"\n{table}" if table else "") + besides


def _wrapped(text: str) -> str:
    return "\n\n".join(textwrap.fill(each, _COLUMNS_MAX) for each in text.split("\n\n"))


def _options(command: _Command, panel: str | None) -> str:
    """Return the table of a command's options of one group, with those of its arguments that say more."""
    wanted = [each for each in command.params if each.panel == panel and each.info.help]
    rows = [(f"`{_name(each)}`", _description(each)) for each in wanted]
    return _table(("Option", ""), rows) if rows else ""


def _table(titles: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {' | '.join(titles)} |", "|---|---|"]
    lines += [f"| {_in_cell(name)} | {_in_cell(text)} |" for name, text in rows]
    return "\n".join(lines) + "\n"


def _in_cell(text: str) -> str:
    return text.replace("|", "\\|")


def _argument(param: _Param) -> str:
    name = f"{param.info.metavar or param.name.upper()}{'...' if param.is_list else ''}"
    return name if param.is_required else f"[{name}]"


def _name(param: _Param) -> str:
    if not isinstance(param.info, OptionInfo):
        return _argument(param)
    # Beside `Annotated`, the first name of an option stands where its default would be.
    declared = [param.info.default, *(param.info.param_decls or ())]
    names = [each for each in declared if isinstance(each, str) and each.startswith("-")]
    shown = ", ".join(names or [f"--{param.name.replace('_', '-')}"])
    if param.is_flag:
        return shown.replace("/", " / ")
    return f"{shown} {param.info.metavar or '|'.join(param.choices) or _METAVARS.get(param.kind, 'TEXT')}"


def _description(param: _Param) -> str:
    parts = [f"{param.info.help or ''}"]
    if param.default not in (None, "", False):
        parts.append(f"Default: `{param.default}`.")
    return " ".join(part if part.endswith((".", ")")) else f"{part}." for part in parts)


def main(path: Path) -> None:
    """Bring a page up to date."""
    path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
