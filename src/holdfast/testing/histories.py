"""Histories that are kept beside the tests, to be replayed against the code of later days."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.app import App
from holdfast.client.handle import OrchestrationHandle
from holdfast.errors import HoldfastError


def assert_history_snapshot(
    app: App, history: str, path: Path, *, update: bool = False, must_exist: bool = False
) -> None:
    """Hold that the history in a file still replays; where there is no file yet, keep this history in it.

    Args:
        history: what `Client.export_history` returns.
        update: keep this history instead of the one in the file.
        must_exist: fail where there is no file, as it should be where nobody commits new files.

    Raises:
        AssertionError: saying what the code does otherwise, and what would become of instances in flight.
    """
    if update or not path.exists():
        if must_exist and not update:
            raise AssertionError(
                f"There is no history in {path}. Run the test where files are kept, and commit what it writes."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(history, encoding="utf-8", newline="\n")
        return
    try:
        app.check_replay(path.read_text(encoding="utf-8"))
    except HoldfastError as error:
        raise AssertionError(
            f"The code does not replay the history in {path} any more; an instance that is in flight where this is "
            f"deployed would be parked.\n{error}\n"
            "If no such instance is left anywhere, keep the new history: pytest --holdfast-update-histories"
        ) from None


class HistorySnapshot:
    """Keeps histories of one test in one folder: `await history_snapshot(run)`."""

    def __init__(self, app: App, folder: Path, name: str, *, update: bool, must_exist: bool) -> None:
        self._app = app
        self._folder = folder
        self._name = name
        self._update = update
        self._must_exist = must_exist

    async def __call__(self, run: OrchestrationHandle[Any], *, name: str | None = None) -> None:
        """Hold that the history kept for this test still replays; keep that of `run` if there is none.

        Args:
            name: tells several histories of one test apart.
        """
        client = run._client  # pyright: ignore[reportPrivateUsage] - one package; a handle is all that a test has
        file = self._name if name is None else f"{self._name}.{name}"
        assert_history_snapshot(
            self._app,
            await client.export_history(run.instance_id),
            self._folder / f"{file}.json",
            update=self._update,
            must_exist=self._must_exist,
        )
