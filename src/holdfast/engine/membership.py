"""A host among others: what it hears of them, and what it lets them know."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from holdfast.engine.unserved import Unserved
from holdfast.storage.mail import HintKind, Mail

if TYPE_CHECKING:
    from holdfast.engine.fleet_mail import FleetMail
    from holdfast.engine.lending import Lending
    from holdfast.engine.node import Node

logger = logging.getLogger("holdfast.engine")

_SETTLES_IN_S: Final = 30.0
"""How long a request waits while partitions move, or a host begins again."""


class Membership:
    """Of one engine, from its start to its stop. A host that is alone on its store hears and says nothing."""

    def __init__(self) -> None:
        self._mail: Mail | None = None
        self._fleet_mail: FleetMail | None = None
        self._node: Node | None = None
        self._has_node = asyncio.Event()
        self._owned: int | None = None
        self.is_leaving = False
        """Whether the host is stopping, or has stopped."""
        self._jobs: list[asyncio.Task[None]] = []
        self.lending: Lending | None = None
        """What passes activities between hosts."""
        self.unserved = Unserved()

    def join(self, mail: Mail, fleet_mail: FleetMail, lending: Lending) -> None:
        """Exchange requests, activities and hints with other hosts, from the start on."""
        self._mail, self._fleet_mail, self.lending = mail, fleet_mail, lending

    async def learn(self) -> None:
        """Find out what other hosts can run, before the next node decides what nobody can."""
        if self.lending is not None:
            await self.lending.learn()

    def begins(self, node: Node) -> None:
        """Note the node of now, with the partitions that it owns."""
        self._node = node
        self._has_node.set()
        self._say_share(node)
        if self._mail is not None and self._fleet_mail is not None and self.lending is not None:
            self._mail.listen(self._heard)
            self._fleet_mail.look("requests")  # of those who asked while the partitions had no owner
            self.lending.look(hosts_changed=True)
            if not self._jobs:
                start = asyncio.get_running_loop().create_task
                self._jobs = [start(self._fleet_mail.run()), start(self.lending.run())]

    def _say_share(self, node: Node) -> None:
        """Log how much this host owns, if that has changed; one that has always been alone says nothing."""
        count = node.partitions.count
        owned = count if node.partitions.some is None else len(node.partitions.some)
        if owned != self._owned and (self._owned is not None or owned < count):
            logger.info("This host owns %d of the %d partitions of the task hub now.", owned, count)
        self._owned = owned

    @property
    def node(self) -> Node | None:
        """The node of now."""
        return self._node

    def is_alone(self) -> bool:
        """Whether this host owns the whole hub, or nothing just now."""
        return self._node is None or self._node.partitions.some is None

    def pauses(self) -> None:
        """Note that there is no node, until the next one begins."""
        self._node = None
        self._has_node.clear()
        if self.lending is not None:
            self.lending.forget_offers()

    async def settled_in(self) -> None:
        """Wait, if there is no node, for the next one; not for ever."""
        if not self._has_node.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLES_IN_S):
                    await self._has_node.wait()

    def knows_orchestrator(self, name: str) -> bool:
        """Whether some other host has an orchestrator, as far as is known."""
        return self.lending is not None and self.lending.knows_orchestrator(name)

    def may_know_orchestrator(self, name: str, instance_id: str) -> bool:
        """Whether some other host may have the orchestrator of an instance that is to run."""
        return self.lending is not None and self.lending.may_know_orchestrator(name, instance_id)

    def sent_elsewhere(self, partitions: set[int]) -> None:
        """Tell the owners of partitions that messages lie in the store for them."""
        if self._fleet_mail is not None:
            self._fleet_mail.hint_arrivals(partitions)

    def _heard(self, kind: HintKind) -> None:
        node = self._node
        match kind:
            case "requests" | "answers":
                if self._fleet_mail is not None:
                    self._fleet_mail.look(kind)
            case "arrivals":
                if node is not None:
                    node.arrivals.look()
            case "hosts":
                if node is not None:
                    node.has_doubts.set()
                    node.arrivals.look()
                if self._fleet_mail is not None and self.lending is not None:
                    self._fleet_mail.look_around()  # one that died has perhaps not told what it had sent
                    self.lending.look(hosts_changed=True)
            case "offers":
                if self.lending is not None:
                    self.lending.look()

    async def lend(self, node: Node) -> None:
        """Let the next owners of what a node had know which activities run on here."""
        if self.lending is not None:
            await self.lending.lend(node.partitions.count)

    async def take_no_more(self) -> None:
        """Take no more requests and activities of others, and give back requests that are not answered."""
        self.is_leaving = True
        self._has_node.set()  # whoever waits finds out that the host is stopping
        if self._fleet_mail is not None and self.lending is not None:
            self.lending.take_no_more()
            await self._fleet_mail.close()

    async def leave(self) -> None:
        """Tell the other hosts what is left to be told, and nothing more."""
        await self.take_no_more()
        jobs, self._jobs = self._jobs, []
        if self.lending is not None and jobs:
            await self.lending.flush()
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
