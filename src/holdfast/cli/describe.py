"""What a server says when it starts."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from holdfast.app import App


def describe(app: App, *, name: str, url: str, store: str, has_key: bool, queues: Collection[str] | None = None) -> str:
    """Return one short block: where it listens, what it keeps where, what it runs, of which queues if not of all."""
    registry = app.registry
    lines = [
        ("Listening on", f"{url}  ({'with a key' if has_key else 'for this machine only, without a key'})"),
        ("Store", store),
        ("Orchestrators", _names(each.name for each in registry.orchestrators)),
        ("Activities", _names(each.name for each in registry.activities)),
        *([] if queues is None else [("Of the queues", _names(queues))]),
        ("Entities", _names(each.name for each in registry.entities)),
        ("Routes", _names(f"{'|'.join(route.methods)} /api{route.path}" for route in app.routes)),
    ]
    width = max(len(title) for title, _ in lines)
    return "\n".join([f"Holdfast runs {name}", *(f"  {title:<{width}}  {text}" for title, text in lines)])


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
