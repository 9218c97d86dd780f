from __future__ import annotations

import time

import biscuit_auth as biscuit
import pytest
from capsign_agent.handles.contact import Contact
from capsign_agent.handles.narrow import Narrowing
from capsign_agent.handles.registry import HandleRegistry
from capsign_agent.handles.socket_handles import SocketHandles
from capsign_agent.handles.unavailable import NotYetError
from capsign_wire.adapter.v1 import capability_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_pki import TestCa
from support.fake_adapter import FakeAdapter, Grant

NOW = time.time()


@pytest.fixture
def fake(ca: TestCa) -> FakeAdapter:
    return FakeAdapter(ca)


def book(fake: FakeAdapter, *sockets: SocketHandles) -> HandleRegistry:
    return HandleRegistry(sockets or (SocketHandles("app", (), Narrowing()),))


def take(one: HandleRegistry, fake: FakeAdapter, *grants: Grant) -> None:
    one.replace(
        [fake.handle(grant) for grant in grants], NOW, bytes(fake.mint.public_key.to_bytes())
    )


def reason(socket: SocketHandles, handle_id: str, now: float = NOW) -> int:
    with pytest.raises(FailureError) as caught:
        socket.find(handle_id, now, 5.0)
    return caught.value.reason


def test_an_id_stays_the_same_over_renewal_while_the_token_changes(fake: FakeAdapter) -> None:
    held = book(fake)
    take(held, fake, Grant("a"))
    [before] = held.sockets[0].listed(NOW, 0)
    name, token = before.id, before.token
    take(held, fake, Grant("a"))
    [after] = held.sockets[0].listed(NOW, 0)
    assert after.id == name
    assert after.token != token


def test_an_id_means_nothing_on_another_socket(fake: FakeAdapter) -> None:
    first, second = SocketHandles("one", (), Narrowing()), SocketHandles("two", (), Narrowing())
    held = book(fake, first, second)
    take(held, fake, Grant("a"))
    [mine], [other] = first.listed(NOW, 0), second.listed(NOW, 0)
    assert mine.id != other.id
    assert reason(second, mine.id) == fail.REASON_HANDLE_UNKNOWN


def revoked(grant: str, purpose: str = "jwt") -> capability_pb2.RevokedGrant:
    return capability_pb2.RevokedGrant(
        grant=grant, purpose=purpose, algorithms=[alg.ALGORITHM_ES256], words="It was revoked."
    )


def test_an_agent_that_never_had_a_revoked_handle_says_that_it_was_revoked(
    fake: FakeAdapter,
) -> None:
    """An application asked a fresh agent, or listed anew, and heard HANDLE_UNKNOWN."""
    held = book(fake)
    held.replace([], NOW, b"", [revoked("a")])
    assert held.sockets[0].listed(NOW, 0) == []
    [gone] = held.sockets[0].withdrawn()
    assert (gone.shown().purpose, gone.shown().withdrawn) == ("jwt", "It was revoked.")
    with pytest.raises(FailureError, match="It was revoked") as caught:
        held.sockets[0].find(gone.id, NOW, 5.0)
    assert caught.value.reason == fail.REASON_HANDLE_REVOKED
    take(held, fake, Grant("a"))
    [back] = held.sockets[0].listed(NOW, 0)
    assert (back.id, back.shown().withdrawn) == (gone.id, "")
    assert held.sockets[0].withdrawn() == []


def test_why_a_handle_is_gone_is_told_once_the_adapter_has_said_it(fake: FakeAdapter) -> None:
    held = book(fake)
    take(held, fake, Grant("a"))
    [before] = held.sockets[0].listed(NOW, 0)
    held.drop_grant("a")
    assert before.shown().withdrawn == "The adapter withdrew this handle."
    held.replace([], NOW, b"", [revoked("a")])
    assert before.shown().withdrawn == "It was revoked."


def test_one_that_was_withdrawn_stands_in_nobodys_way(fake: FakeAdapter) -> None:
    """A client that names a purpose alone gets the good handle, not a choice between two."""
    held = book(fake)
    take(held, fake, Grant("a"), Grant("b"))
    held.drop_grant("a")
    assert held.sockets[0].withdrawn() == []
    held.drop_grant("b")
    assert [one.grant for one in held.sockets[0].withdrawn()] == ["a", "b"]


def test_a_socket_is_told_only_of_its_own_grants_that_were_revoked(fake: FakeAdapter) -> None:
    mine, other = SocketHandles("one", ("a",), Narrowing()), SocketHandles("two", (), Narrowing())
    held = book(fake, mine, other)
    held.replace([], NOW, b"", [revoked("a"), revoked("b")])
    assert [one.grant for one in mine.withdrawn()] == ["a"]
    assert [one.grant for one in other.withdrawn()] == ["a", "b"]


def test_an_agent_that_has_not_heard_of_revocations_for_long_offers_nothing(
    fake: FakeAdapter,
) -> None:
    """It is cut off: what it holds may be revoked by now, and its keys no longer trusted."""
    clock = [1000.0]
    held = HandleRegistry((SocketHandles("app", (), Narrowing()),), Contact(60, lambda: clock[0]))
    take(held, fake, Grant("a"))
    socket = held.sockets[0]
    [handle] = [one.id for one in socket.listed(NOW, 0)]
    clock[0] += 61
    assert reason(socket, handle) == fail.REASON_REVOCATIONS_UNHEARD
    with pytest.raises(NotYetError, match="No adapter was heard for 61 s"):
        socket.listed(NOW, 0)
    held.contact.heard()
    assert socket.find(handle, NOW, 0).id == handle
    clock[0] += 60
    assert socket.find(handle, NOW, 0).id == handle


def test_a_socket_offers_only_its_grants(fake: FakeAdapter) -> None:
    first, second = (
        SocketHandles("one", ("a",), Narrowing()),
        SocketHandles("two", ("b",), Narrowing()),
    )
    held = book(fake, first, second)
    assert held.wanted == ["a", "b"]
    take(held, fake, Grant("a"), Grant("b"))
    assert [one.grant for one in first.listed(NOW, 0)] == ["a"]
    assert [one.grant for one in second.listed(NOW, 0)] == ["b"]
    assert book(fake, first, SocketHandles("three", (), Narrowing())).wanted == []


def test_what_a_renewal_leaves_out_is_revoked_and_forgotten(fake: FakeAdapter) -> None:
    held = book(fake)
    take(held, fake, Grant("a"), Grant("b"))
    gone = next(one for one in held.sockets[0].listed(NOW, 0) if one.grant == "b")
    take(held, fake, Grant("a"))
    assert reason(held.sockets[0], gone.id) == fail.REASON_HANDLE_REVOKED
    assert gone.token == b""


def test_a_grant_given_back_has_its_old_id(fake: FakeAdapter) -> None:
    held = book(fake)
    take(held, fake, Grant("a"))
    [one] = held.sockets[0].listed(NOW, 0)
    held.drop_all()
    assert reason(held.sockets[0], one.id) == fail.REASON_HANDLE_REVOKED
    take(held, fake, Grant("a"))
    assert held.sockets[0].find(one.id, NOW, 0) is one


def test_a_serial_drops_the_handle_that_has_it_and_no_renewed_one(fake: FakeAdapter) -> None:
    held = book(fake)
    take(held, fake, Grant("a"))
    old = held.issued["a"].serial
    take(held, fake, Grant("a"))
    assert held.drop_serials([old]) == 0
    assert held.drop_serials([held.issued["a"].serial]) == 1
    assert held.usable(NOW) == 0


def test_expiry_allows_for_the_skew_and_no_more(fake: FakeAdapter) -> None:
    held = book(fake)
    take(held, fake, Grant("a", life_s=100))
    [one] = held.sockets[0].listed(NOW, 0)
    assert held.sockets[0].find(one.id, one.expires_at + 4.9, 5.0) is one
    assert reason(held.sockets[0], one.id, one.expires_at + 5.0) == fail.REASON_UPSTREAM_UNREACHABLE


def test_renewal_is_due_at_half_of_the_shortest_life(
    fake: FakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = book(fake)
    assert held.half_life() == 0
    monkeypatch.setattr("support.fake_adapter.time.time", lambda: NOW)
    take(held, fake, Grant("a", life_s=1000), Grant("b", life_s=100))
    assert held.half_life() == pytest.approx(NOW + 50, abs=2)
    short = book(fake, SocketHandles("app", (), Narrowing(ttl_s=20)))
    take(short, fake, Grant("a", life_s=1000))
    assert short.half_life() == pytest.approx(NOW + 10, abs=2)


def test_only_what_is_due_is_renewed_and_the_rest_stays(
    fake: FakeAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "support.fake_adapter.time.time", lambda: NOW
    )  # NOW is when the tests were collected
    held = book(fake)
    take(
        held,
        fake,
        Grant("long", life_s=1000),
        Grant("short", life_s=100),
        Grant("gone", life_s=100),
    )
    assert held.due(NOW + 10) == []
    assert sorted(held.due(NOW + 60)) == ["gone", "short"]
    long = held.issued["long"].serial
    held.renewed(["short", "gone"], [fake.handle(Grant("short"))], NOW + 60)
    assert sorted(held.issued) == ["long", "short"]
    assert held.issued["long"].serial == long
    assert held.due(NOW + 60) == []


def test_narrowing_is_a_block_that_the_mint_never_sees(fake: FakeAdapter) -> None:
    socket = SocketHandles("app", (), Narrowing(("ES256",), "issuer", 60))
    held = book(fake, socket)
    take(held, fake, Grant("a", roles=("issuer", "verifier")))
    [one] = socket.listed(NOW, 0)
    assert one.algorithms == {alg.ALGORITHM_ES256}
    assert one.expires_at == pytest.approx(NOW + 60)
    token = biscuit.Biscuit.from_bytes(one.token, fake.mint.public_key)
    assert token.block_count() == 2
    assert 'check if algorithm($a), ["ES256"].contains($a)' in token.block_source(1)
    assert 'check if role($r), $r == "issuer"' in token.block_source(1)
    assert "check if time($t), $t < " in token.block_source(1)


def test_a_token_of_another_mint_is_not_narrowed_and_the_old_one_stays(
    fake: FakeAdapter, ca: TestCa
) -> None:
    socket = SocketHandles("app", (), Narrowing(("ES256",)))
    held = book(fake, socket)
    take(held, fake, Grant("a"))
    token = socket.listed(NOW, 0)[0].token
    with pytest.raises(ValueError, match="narrowed"):
        held.replace([FakeAdapter(ca).handle(Grant("a"))], NOW)
    assert socket.listed(NOW, 0)[0].token == token


def test_one_that_cannot_be_narrowed_costs_the_others_nothing(
    fake: FakeAdapter, ca: TestCa
) -> None:
    """The one of an adapter with another mint came first, and those after it were not taken: they
    ended, although the adapter had given new ones.
    """
    socket = SocketHandles("app", (), Narrowing(("ES256",)))
    held = book(fake, socket)
    take(held, fake, Grant("a"), Grant("b"))
    before = {one.grant: one.token for one in socket.listed(NOW, 0)}
    with pytest.raises(ValueError, match="narrowed"):
        held.replace([FakeAdapter(ca).handle(Grant("a")), fake.handle(Grant("b"))], NOW)
    after = {one.grant: one.token for one in socket.listed(NOW, 0)}
    assert after["a"] == before["a"]
    assert after["b"] != before["b"]


def test_a_node_whose_clock_is_hours_ahead_is_told_that_its_clock_is(fake: FakeAdapter) -> None:
    """Every new handle has ended by that clock: "not renewed yet", for ever, would name the wrong
    cause.
    """
    held = book(fake)
    ahead = NOW + 5 * 3600
    held.replace(
        [fake.handle(Grant("a", life_s=900))], ahead, bytes(fake.mint.public_key.to_bytes())
    )
    [handle] = [one.id for one in held.sockets[0].listed(NOW, 5.0)]
    for look in (
        lambda: held.sockets[0].find(handle, ahead + 60, 5.0),
        lambda: held.sockets[0].listed(ahead + 60, 5.0),
    ):
        with pytest.raises(
            FailureError, match=r"this node's clock said .* Set the clock"
        ) as caught:
            look()
        assert caught.value.outcome == fail.OUTCOME_UNAVAILABLE
