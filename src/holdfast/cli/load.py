"""From `FILE_OR_MODULE[:APP]` to an app."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

import msgspec

from holdfast.app import App
from holdfast.cli.errors import CommandError


class LoadedApp(msgspec.Struct, frozen=True):
    """An app, and the directory in which its files belong."""

    app: App
    name: str
    directory: Path


def load_app(target: str) -> LoadedApp:
    """Import what a command line names, and find the app in it.

    Raises:
        CommandError: saying what is missing, or with the traceback of the code that failed.
    """
    place, app_name = _split(target)
    path = Path(place)
    if path.suffix == ".py" or path.exists() or any(mark in place for mark in "/\\"):
        module = _import_file(path)
        directory = path.resolve().parent
    else:
        module = _import_module(place)
        directory = Path.cwd()
    return LoadedApp(_find_app(module, place, app_name), place, directory)


def _split(target: str) -> tuple[str, str | None]:
    place, separator, name = target.rpartition(":")
    # The colon of C:\app.py is none of ours.
    return (place, name) if separator and place and name.isidentifier() else (target, None)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        what = "is a directory; name a file in it" if path.is_dir() else "does not exist"
        raise CommandError(f"{str(path)!r} {what}.")
    path = path.resolve()
    if path.suffix != ".py" or "." in path.stem:
        raise CommandError(f"{str(path)!r} cannot be imported: its name must be one word and '.py'.")
    # Under its own name on the path, not as `__main__`: processes that run activities must be able to import it too.
    sys.path.insert(0, str(path.parent))
    module = _imported(path.stem, str(path))
    found: str | None = getattr(module, "__file__", None)  # built-in modules have none
    if found is None or Path(found).resolve() != path:
        raise CommandError(
            f"{str(path)!r} cannot be imported: Python has another module {path.stem!r}. Rename the file."
        )
    return module


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise CommandError(f"{name!r} is neither a file nor the name of a module.")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return _imported(name, name)


def _imported(name: str, shown: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise CommandError(f"There is no module {error.name!r}, looked for from {str(Path.cwd())!r}.") from error
        raise CommandError(_failed_import(shown, error)) from error
    except Exception as error:
        raise CommandError(_failed_import(shown, error)) from error


def _failed_import(shown: str, error: Exception) -> str:
    """Show the traceback from the first line of the user's own."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = (str(Path(__file__)), "<frozen importlib", importlib.__file__ or "")
    own = [frame for frame in frames if not frame.filename.startswith(ours)]
    text = "".join([*traceback.format_list(own), *traceback.format_exception_only(error)])
    return f"{shown!r} could not be imported:\n{text.rstrip()}"


def _find_app(module: ModuleType, place: str, name: str | None) -> App:
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if name is not None:
        if name not in apps:
            raise CommandError(f"{place!r} has no App named {name!r}.{_known(apps)}")
        return apps[name]
    if "app" in apps:
        return apps["app"]
    distinct = {id(app): app for app in apps.values()}
    if len(distinct) != 1:
        few = "no App; make one with `app = App()`" if not distinct else f"several; name one, as in {place}:{min(apps)}"
        raise CommandError(f"{place!r} has {few}.{_known(apps)}")
    return next(iter(distinct.values()))


def _known(apps: dict[str, App]) -> str:
    return f" It has: {', '.join(sorted(apps))}." if apps else ""
