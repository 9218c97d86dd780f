"""The load of a drill: callers who sign through the agents of a fleet, hand what they got to who
verifies it, and report how that went.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Self

import capsign
from support.fleet import GRANT, PATIENCE_S, PLACE, WORKLOADS, Fleet
from support.relying_party import RelyingParty

CALLERS = 64
"""Of all workloads together. It holds on two cores, which adapters, agents and these share."""

PACE_S = 0.2
"""What a caller does between two calls takes so long, seconds: some 300 calls a second in all."""

ASKS_AGENT = 5
"""Every fifth call of a caller is verified by its agent too."""

WISH = {"grant": GRANT, "protocol": "jwt"}


@dataclass
class Held:
    """A signature that somebody has, and for whom it verified."""

    workload: str
    call: capsign.Signature
    verified: tuple[bool, ...]
    """For each signature of the call."""


@dataclass
class Outcome:
    """What became of all calls."""

    held: list[Held] = field(default_factory=list)
    failed: list[tuple[str, capsign.CapsignError]] = field(default_factory=list)
    """Workload and error; none of them is a failure that the client repeats by itself."""
    unknown: list[tuple[str, bytes]] = field(default_factory=list)
    """Workload and intent of calls whose answer was lost: each was resolved, as callers are to."""
    never: set[bytes] = field(default_factory=set)
    """Those of them that have not happened, and never will."""

    def failures_of(self, workload: str) -> list[Held]:
        """Calls with a signature that did not verify."""
        return [one for one in self.held if one.workload == workload and not all(one.verified)]


class Drill:
    """Runs in a thread of its own from `with` on until its end; then `outcome` is complete."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        algorithm: str | None = "ES256",
        callers: int = CALLERS,
        silent: Collection[str] = (),
    ) -> None:
        """`algorithm` None: calls leave it open. `silent`: the workloads whose agents are told
        nothing of verifications, and not asked.
        """
        self._silent = silent
        self.fleet = fleet
        self.outcome = Outcome()
        self.algorithm = algorithm
        tls = ssl.create_default_context(cafile=fleet.dev.about["ca"])
        self.parties = {each: RelyingParty(fleet.addresses, PLACE, tls) for each in WORKLOADS}
        self._callers = callers
        self._over = asyncio.Event()
        self._done = threading.Condition()
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        self.more(len(WORKLOADS))
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "callers do not end"
        self._loop.close()
        if self._error is not None:
            raise self._error

    def more(self, count: int = CALLERS) -> None:
        """Wait until so many more calls are done."""
        until = len(self.outcome.held) + count
        self.until(lambda held: len(held) >= until)

    def until(self, seen: Callable[[list[Held]], bool]) -> None:
        """Wait until what is held is so."""
        with self._done:
            assert self._done.wait_for(
                lambda: self._error or seen(self.outcome.held), timeout=PATIENCE_S
            ), f"{len(self.outcome.held)} calls are done, and {self.outcome.failed[-3:]}"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._all())
        except BaseException as error:
            with self._done:
                self._error = error
                self._done.notify_all()

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for workload in WORKLOADS:
                group.create_task(self._workload(workload))

    async def _workload(self, workload: str) -> None:
        turn = asyncio.Lock()
        share = -(-self._callers // len(WORKLOADS))
        async with (
            capsign.AsyncSigner(self.fleet.sockets[workload], timeout=20) as signer,
            asyncio.TaskGroup() as group,
        ):
            for number in range(share):
                group.create_task(self._caller(workload, signer, turn, number))

    async def _caller(
        self, workload: str, signer: capsign.AsyncSigner, turn: asyncio.Lock, number: int
    ) -> None:
        count = 0
        while not self._over.is_set():
            count += 1
            message = f"{workload} {number} {count}".encode()
            try:
                call = await self._signed(workload, signer, message)
                if call is not None:
                    await self._verify(workload, signer, call, message, turn)
                    if count % ASKS_AGENT == 0 and workload not in self._silent:
                        await signer.verify(message, call, **WISH)
            except capsign.CapsignError as error:
                self.outcome.failed.append((workload, error))
            await self._pause(PACE_S)

    async def _signed(
        self, workload: str, signer: capsign.AsyncSigner, message: bytes
    ) -> capsign.Signature | None:
        """What a careful caller gets: whose answer is lost asks what became of the call. None: it
        never happened.
        """
        try:
            return await signer.sign(message, algorithm=self.algorithm, **WISH)
        except capsign.Unknown as error:
            lost = error
        self.outcome.unknown.append((workload, lost.intent_id))
        ending = await signer.resolve(lost, timeout=PATIENCE_S)
        if isinstance(ending, capsign.Done):
            return ending.signature
        assert isinstance(ending, capsign.Never), ending
        self.outcome.never.add(lost.intent_id)
        return None

    async def _verify(
        self,
        workload: str,
        signer: capsign.AsyncSigner,
        call: capsign.Signature,
        message: bytes,
        turn: asyncio.Lock,
    ) -> None:
        party = self.parties[workload]
        async with turn:
            if party.is_stale:
                await asyncio.to_thread(party.fetch)
        verified = []
        for each in call.signatures:
            good = party.verifies(each.kid, message, each.value)
            verified.append(good)
            if workload not in self._silent:
                wish: Any = WISH | {"algorithm": each.algorithm}
                await signer.report_verification(each.kid, good, **wish)
        with self._done:
            self.outcome.held.append(Held(workload, call, tuple(verified)))
            self._done.notify_all()

    async def _pause(self, seconds: float) -> None:
        """As long as that, or until all is over."""
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
        except TimeoutError:
            return
