"""From threads to an event loop: runs what a client awaits on a loop of another thread, and waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from holdfast.client.client import Client

T = TypeVar("T")


class Bridge(Protocol):
    """Runs what an async client does, from any thread."""

    def run(self, use: Callable[[Client], Coroutine[Any, Any, T]]) -> T: ...

    def close(self) -> None: ...


def iterate(bridge: Bridge, begin: Callable[[Client], AsyncIterator[T]]) -> Iterator[T]:
    """Return what an async iterator of a client does, as it is asked for."""

    async def first(client: Client) -> AsyncIterator[T]:
        return begin(client)

    async def following(source: AsyncIterator[T]) -> tuple[T] | None:
        async for item in source:
            return (item,)
        return None

    source = bridge.run(first)
    while (item := bridge.run(lambda _: following(source))) is not None:
        yield item[0]
