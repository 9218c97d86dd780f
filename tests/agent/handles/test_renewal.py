"""When handles are asked for: in time by the clock that they end by, and again when an answer came
too early for the question.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from capsign_agent.handles.events import HandleEvents
from capsign_agent.handles.narrow import Narrowing
from capsign_agent.handles.registry import HandleRegistry
from capsign_agent.handles.renewal import Renewal, in_requests
from capsign_agent.handles.socket_handles import SocketHandles
from capsign_agent.handles.watch import Watch
from capsign_agent.journal.journal import Journal
from capsign_agent.timing import Timing
from capsign_wire import bounds
from capsign_wire.adapter.v1 import capability_pb2
from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_home import until
from support.clocks import ShiftedClock

LIFE_S = 900.0


class WatchedRegistry(HandleRegistry):
    """Counts how often it was asked how many handles are usable: `keep` does before it renews, and
    goes on to its turn at the adapter at once.
    """

    looks = 0

    def usable(self, now: float) -> int:
        self.looks += 1
        return super().usable(now)


class Adapter:
    """Issues what `grants` says when it is asked; the answer leaves when `gate` is open. It leaves
    out what cannot be renewed.
    """

    def __init__(self, clock: ShiftedClock) -> None:
        self.clock = clock
        self.grants = {"a", "b"}
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing = False
        self.asked = 0
        self.renewals = 0
        self.epoch = 1
        self.ends: dict[bytes, float] = {}
        self.purpose = "jwt"

    async def issue(self, grants: list[str]) -> capability_pb2.IssueHandlesResponse:
        self.asked += 1
        failing, epoch, handles = (
            self.failing,
            self.epoch,
            [self._handle(name) for name in sorted(self.grants)],
        )
        await self.gate.wait()
        if failing:
            raise FailureError(fail.REASON_STORE_UNAVAILABLE)
        return capability_pb2.IssueHandlesResponse(
            handles=handles, mint_public_key=bytes(32), revocation_epoch=epoch
        )

    async def renew(self, tokens: list[bytes]) -> capability_pb2.RenewHandlesResponse:
        self.renewals += 1
        good = [token for token in tokens if self.clock() < self.ends[token]]
        handles = [self._handle(token.decode()[:1]) for token in good]
        return capability_pb2.RenewHandlesResponse(handles=handles, revocation_epoch=1)

    async def watch(self) -> AsyncIterator[capability_pb2.WatchResponse]:
        raise FailureError(fail.REASON_UPSTREAM_UNREACHABLE)
        yield

    def _handle(self, grant: str) -> capability_pb2.IssuedHandle:
        token = f"{grant}{len(self.ends)}".encode()
        self.ends[token] = self.clock() + LIFE_S
        issued = capability_pb2.IssuedHandle(
            token=token,
            serial=bytes(16),
            grant=grant,
            purpose=self.purpose,
            algorithms=[alg.ALGORITHM_ED25519],
        )
        issued.not_before.FromMilliseconds(int(self.clock() * 1000))
        issued.expires_at.FromMilliseconds(int(self.ends[token] * 1000))
        return issued


class Rig:
    def __init__(self, directory: Path) -> None:
        self.clock = ShiftedClock()
        self.adapter = Adapter(self.clock)
        self.socket = SocketHandles("app", (), Narrowing((), "", 0))
        self.book = WatchedRegistry([self.socket])
        self.journal = Journal(directory, 1 << 20, bytes(16), 1_700_000_000_000)
        changes = HandleEvents(self.book, self.journal, self.clock)
        timing = Timing(retry_delay_s=lambda failures: 0.02, look_at_handles_s=0.02)
        self.renewal = Renewal(
            self.book, self.adapter, changes, Metrics(), self.clock, timing=timing
        )
        self.watch = Watch(
            self.adapter, changes, self.renewal, lambda: None, lambda _: None, timing
        )

    @contextmanager
    def keeping(self) -> Iterator[None]:
        task = asyncio.create_task(self.renewal.keep())
        try:
            yield
        finally:
            task.cancel()

    def handle(self) -> str:
        return self.socket.listed(self.clock(), 0)[0].id


@pytest.fixture
async def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def settled(rig: Rig) -> None:
    await until(lambda: rig.book.issued)
    await asyncio.sleep(0.05)


async def test_handles_that_ended_while_the_node_slept_are_fetched_and_not_called_revoked(
    rig: Rig,
) -> None:
    """The clock went on by an hour, the timer did not. Calls were refused as expired until the
    timer of half a life ran out.
    """
    with rig.keeping():
        await settled(rig)
        handle = rig.handle()
        rig.clock.ahead_s = 3600
        with pytest.raises(FailureError, match="UPSTREAM_UNREACHABLE"):
            rig.socket.find(handle, rig.clock(), 0)
        await until(lambda: rig.adapter.asked == 2, seconds=5)
        await asyncio.sleep(0.02)
        assert rig.socket.find(handle, rig.clock(), 0).token
        assert rig.adapter.renewals == 0


async def test_a_clock_that_is_set_past_half_a_life_leads_to_a_renewal(rig: Rig) -> None:
    with rig.keeping():
        await settled(rig)
        rig.clock.ahead_s = LIFE_S * 0.6
        await until(lambda: rig.adapter.renewals == 1, seconds=5)
        assert rig.adapter.asked == 1


async def test_a_look_at_the_clock_is_no_question_to_the_adapter(rig: Rig) -> None:
    with rig.keeping():
        await settled(rig)
        await asyncio.sleep(0.3)
        assert (rig.adapter.asked, rig.adapter.renewals) == (1, 0)


async def test_what_is_told_while_an_answer_is_on_its_way_is_asked_for_again(rig: Rig) -> None:
    """The adapter decides on an answer, then `b` is withdrawn and `c` granted, and that news is
    faster. The older answer brought `b` back, and the question that the news led to was taken for
    answered: `c` was missed until half of the handles' life.
    """
    with rig.keeping():
        await settled(rig)
        rig.adapter.gate.clear()
        rig.renewal.fetch_soon()
        await until(lambda: rig.adapter.asked == 2)
        rig.adapter.grants = {"a", "c"}
        rig.watch.heed(
            capability_pb2.WatchResponse(
                revocation_epoch=2, policy_digest=b"n" * 32, dropped_grants=["b"]
            )
        )
        assert sorted(rig.book.issued) == ["a"]
        rig.adapter.gate.set()
        await until(lambda: sorted(rig.book.issued) == ["a", "c"], seconds=5)
        await asyncio.sleep(0.3)
        assert rig.adapter.asked == 3


async def test_old_news_that_comes_after_the_answer_takes_nothing_away(rig: Rig) -> None:
    """`b` was revoked and lifted again. The set that the adapter gave after the lift was held when
    the word of a replica that did not know of it yet arrived: `b` was dropped, and since its epoch
    was heard before, it was not asked for until something else changed.
    """
    rig.adapter.epoch = 7
    with rig.keeping():
        await settled(rig)
        for epoch in (6, 7):
            dropped = ["b"] if epoch == 6 else []
            rig.watch.heed(
                capability_pb2.WatchResponse(revocation_epoch=epoch, dropped_grants=dropped)
            )
            assert sorted(rig.book.issued) == ["a", "b"]
        assert rig.adapter.asked == 1


async def test_whatever_is_dropped_is_asked_for_once_more(rig: Rig) -> None:
    """A renewal told epoch 9, so the news of it is not new; what it drops may be given again."""
    with rig.keeping():
        await settled(rig)
        rig.renewal.heed_epoch(9)
        await until(lambda: rig.adapter.asked == 2)
        rig.watch.heed(capability_pb2.WatchResponse(revocation_epoch=9, dropped_grants=["b"]))
        assert sorted(rig.book.issued) == ["a"]
        await until(lambda: sorted(rig.book.issued) == ["a", "b"], seconds=5)
        for _ in range(3):  # told again and again while it stands, and there is nothing to drop
            rig.adapter.grants = {"a"}
            rig.watch.heed(capability_pb2.WatchResponse(revocation_epoch=9, dropped_grants=["c"]))
        await asyncio.sleep(0.3)
        assert rig.adapter.asked == 3


async def test_news_that_is_no_newer_than_the_answer_on_its_way_asks_nothing(rig: Rig) -> None:
    """An agent's first news may come before its first handles: such a start asked twice."""
    rig.adapter.epoch = 7
    rig.adapter.gate.clear()
    with rig.keeping():
        await until(lambda: rig.adapter.asked == 1)
        rig.watch.heed(capability_pb2.WatchResponse(revocation_epoch=7, policy_digest=b"n" * 32))
        rig.adapter.gate.set()
        await settled(rig)
        await asyncio.sleep(0.3)
        assert rig.adapter.asked == 1
        rig.watch.heed(capability_pb2.WatchResponse(revocation_epoch=8, policy_digest=b"n" * 32))
        await until(lambda: rig.adapter.asked == 2)


@pytest.mark.parametrize("policy", [b"n" * 32, b"o" * 32], ids=["policy", "epoch"])
async def test_news_that_is_newer_than_the_answer_on_its_way_asks_once_more(
    rig: Rig, policy: bytes
) -> None:
    rig.watch.heed(capability_pb2.WatchResponse(revocation_epoch=1, policy_digest=b"o" * 32))
    rig.adapter.gate.clear()
    with rig.keeping():
        await until(lambda: rig.adapter.asked == 1)
        epoch = 2 if policy == b"o" * 32 else 1
        rig.watch.heed(capability_pb2.WatchResponse(revocation_epoch=epoch, policy_digest=policy))
        rig.adapter.gate.set()
        await until(lambda: rig.adapter.asked == 2, seconds=5)
        await asyncio.sleep(0.3)
        # though the answer is still older than the news: that replica may be behind for a while
        assert rig.adapter.asked == 2


async def test_news_during_a_question_of_others_that_failed_is_asked_for_at_once(rig: Rig) -> None:
    """Handles over the connections of a new certificate, which is given up for a newer one: the
    news came meanwhile.
    """
    with rig.keeping():
        await settled(rig)
        rig.adapter.gate.clear()
        over = asyncio.create_task(rig.renewal.fetch(rig.adapter))
        await until(lambda: rig.adapter.asked == 2)
        rig.adapter.epoch, rig.adapter.grants = 2, {"a", "c"}
        rig.watch.heed(capability_pb2.WatchResponse(revocation_epoch=2, policy_digest=b"n" * 32))
        over.cancel()
        rig.adapter.gate.set()
        await until(lambda: sorted(rig.book.issued) == ["a", "c"], seconds=5)


async def test_what_was_asked_for_before_a_question_of_others_that_failed_is_asked_for_at_once(
    rig: Rig,
) -> None:
    """The wish came, the question over the connections of a new certificate took it with it, and
    was given up. `keep` had found nothing to do in between, and slept for half a life on handles
    that it had been told were wrong.
    """
    with rig.keeping():
        await settled(rig)
        rig.adapter.gate.clear()
        looks = rig.book.looks
        rig.renewal.fetch_soon()
        over = asyncio.create_task(rig.renewal.fetch(rig.adapter))
        await until(lambda: rig.adapter.asked == 2)
        # keep, which wants to renew what is due: nothing
        await until(lambda: rig.book.looks > looks)
        rig.adapter.grants = {"a", "c"}
        over.cancel()
        rig.adapter.gate.set()
        await until(lambda: sorted(rig.book.issued) == ["a", "c"], seconds=5)


async def test_nothing_is_renewed_after_a_question_of_others_that_failed(rig: Rig) -> None:
    """A certificate had ended, so the connections were the next one's already; handles could not be
    had yet. There the old ones look stolen, and are left out of the answer to a renewal: that was
    taken for a revocation, which is final to callers.
    """
    with rig.keeping():
        await settled(rig)
        rig.adapter.gate.clear()
        looks = rig.book.looks
        over = asyncio.create_task(rig.renewal.fetch(rig.adapter))
        await until(lambda: rig.adapter.asked == 2)
        rig.clock.ahead_s = LIFE_S * 0.6
        await until(lambda: rig.book.looks > looks)
        over.cancel()
        rig.adapter.gate.set()
        await until(lambda: rig.adapter.asked == 3, seconds=5)
        assert rig.adapter.renewals == 0


async def test_grants_that_the_adapter_does_not_give_are_named_once(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are held; only the log can say what became of the one that policy withdrew."""
    rig.socket.grants = frozenset({"a", "b", "withdrawn"})
    await rig.renewal.fetch()
    await rig.renewal.fetch()
    assert rig.book.usable(rig.clock()) == 2
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    missing = [line["grants"] for line in told if line["event"] == "handles.missing"]
    assert missing == ["withdrawn"]


async def test_a_question_that_failed_is_asked_again(rig: Rig) -> None:
    with rig.keeping():
        await settled(rig)
        rig.adapter.failing = True
        rig.adapter.grants = {"a", "c"}
        rig.renewal.fetch_soon()
        await until(lambda: rig.adapter.asked > 2)
        rig.adapter.failing = False
        await until(lambda: sorted(rig.book.issued) == ["a", "c"], seconds=5)


async def test_only_a_renewal_that_changes_nothing_is_routine(rig: Rig) -> None:
    with rig.keeping():
        await settled(rig)
        assert rig.journal.pressing  # the first
        rig.journal.seal()
        rig.renewal.fetch_soon()
        await until(lambda: rig.adapter.asked == 2)
        await until(lambda: rig.journal.unsealed)
        assert not rig.journal.pressing
        rig.adapter.purpose = "webhook"
        rig.renewal.fetch_soon()
        await until(lambda: rig.journal.pressing)
        rig.journal.seal()
        rig.adapter.grants = {"a"}
        rig.renewal.fetch_soon()
        await until(lambda: rig.journal.pressing)


@pytest.mark.parametrize("size", [1, 400, 4096])
def test_tokens_are_renewed_as_many_at_a_time_as_a_request_takes(size: int) -> None:
    tokens = {f"grant-{number}": bytes(size) for number in range(256)}
    parts = list(in_requests(tokens))
    assert {name: token for part in parts for name, token in part.items()} == tokens
    for part in parts:
        assert (
            capability_pb2.RenewHandlesRequest(tokens=list(part.values())).ByteSize()
            <= bounds.ADAPTER_REQUEST_BYTES
        )
    assert len(parts) == (1 if size < 1000 else 5)
