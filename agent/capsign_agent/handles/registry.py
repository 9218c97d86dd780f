"""The handles that the agent holds, as its sockets see them. No I/O; time is an argument.

A socket's handle keeps its id for the life of the agent: renewal changes what is behind the id,
never the id. A handle that was dropped stays known, so that a caller hears "revoked" and not
"unknown". One that ended because nobody could renew it stays too: nobody withdrew it, so it is
*unavailable* and not refused, with whatever hindered the renewal as the cause.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from capsign_wire.adapter.v1 import capability_pb2
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2

from capsign_agent.handles.narrow import Narrowing
from capsign_agent.handles.rate import RateLimit
from capsign_agent.handles.rules import Rule

Issued = capability_pb2.IssuedHandle

_CAUSES = frozenset(
    {
        failures_pb2.REASON_STORE_UNAVAILABLE,
        failures_pb2.REASON_TOKEN_UNAVAILABLE,
        failures_pb2.REASON_OVERLOADED,
    }
)
"""What an adapter says of itself, and callers may hear as it was said. All else is an adapter that
cannot be reached.
"""


class NotYetError(FailureError):
    """There is no good handle now, and there may be one in a moment. Always *unavailable*."""


def ended_upstream(failure: FailureError) -> NotYetError:
    """An adapter refused a handle as ended by its clock, and bound no intent to that. It is
    renewed, and may be used then.
    """
    said = (
        failure.detail.removesuffix(failure.row.advice).strip()
        or "The handle has ended by the adapter's clock."
    )
    return NotYetError(
        failures_pb2.REASON_UPSTREAM_UNREACHABLE,
        f"{said} It is asked for anew.",
        retry_after_ms=200,
    )


class Hindrance:
    """Why handles could not be fetched the last time; None after a time that went well. Shared by
    the sockets of an agent.
    """

    def __init__(self) -> None:
        self.failure: FailureError | None = None

    def over(self, what: str) -> FailureError:
        """The failure of a call about a handle that has ended, or has not come yet."""
        failure = self.failure
        if failure is None:
            return NotYetError(
                failures_pb2.REASON_UPSTREAM_UNREACHABLE, f"{what}.", retry_after_ms=200
            )
        said = failure.detail.removesuffix(failure.row.advice).strip()
        reason = (
            failure.reason
            if failure.reason in _CAUSES
            else failures_pb2.REASON_UPSTREAM_UNREACHABLE
        )
        return NotYetError(
            reason, f"{what}. Asked for new ones: {failure.row.name}. {said}", retry_after_ms=500
        )

    @property
    def final(self) -> bool:
        """Whether the adapter was there and refused: it gives this workload nothing."""
        return self.failure is not None and self.failure.outcome == failures_pb2.OUTCOME_REFUSED


class Held:
    """A grant as one socket holds it. What renewal changes is replaced as a whole, between two
    calls.
    """

    __slots__ = (
        "algorithms",
        "expires_at",
        "gone",
        "grant",
        "id",
        "issued",
        "rate",
        "rule",
        "socket",
        "taken_at",
        "token",
    )

    def __init__(self, socket: str, grant: str, rate: RateLimit) -> None:
        self.id = secrets.token_urlsafe(16)
        self.socket = socket
        self.grant = grant
        self.rate = rate
        self.issued = Issued()
        self.token = b""
        self.algorithms: frozenset[algorithms_pb2.Algorithm.ValueType] = frozenset()
        self.rule = Rule("", frozenset(), self.issued.context_rule)
        self.expires_at = 0.0
        self.taken_at = 0.0
        """By this node's clock; the adapter's says when it ends."""
        self.gone: failures_pb2.Reason.ValueType = failures_pb2.REASON_UNSPECIFIED

    def shown(self) -> agent_pb2.KeyHandle:
        """What the application may know."""
        shown = agent_pb2.KeyHandle(
            id=self.id,
            grant=self.grant,
            purpose=self.issued.purpose,
            algorithms=sorted(self.algorithms),
            context_rule=self.issued.context_rule,
            rate_per_second=self.issued.rate_per_second,
        )
        shown.expires_at.FromMilliseconds(int(self.expires_at * 1000))
        return shown


class SocketHandles:
    """The handles of one socket."""

    def __init__(self, name: str, grants: Iterable[str], narrowing: Narrowing) -> None:
        self.name = name
        self.grants = frozenset(grants)
        self.narrowing = narrowing
        self.hindrance = Hindrance()
        """Of the agent: `HandleBook` puts its own here."""
        self.known = False
        """Whether an adapter has said which handles there are. Until then "none" would be a guess,
        not an answer.
        """
        self._by_id: dict[str, Held] = {}
        self._by_grant: dict[str, Held] = {}

    def find(self, handle_id: str, now: float, skew: float) -> Held:
        """The handle that may be used now. Raises HANDLE_REVOKED; HANDLE_UNKNOWN, once an adapter
        has said which there are; HANDLE_EXPIRED, if the adapter gives no more; NotYetError where
        one that ended could not be renewed.
        """
        held = self._by_id.get(handle_id)
        if held is None:
            if not self.known:
                raise self._not_yet()
            raise FailureError(
                failures_pb2.REASON_HANDLE_UNKNOWN,
                "This socket has no such handle.",
                field="handle_id",
            )
        if held.gone:
            raise FailureError(held.gone, "The adapter withdrew this handle.", field="handle_id")
        if now >= held.expires_at and self._ended(held, now, skew):
            if self.hindrance.final:
                raise self._given_no_more()
            raise self._unrenewed(held, "The handle has ended and is not renewed yet")
        return held

    def listed(self, now: float, skew: float) -> list[Held]:
        """Those that nobody withdrew, by grant. One that has ended is listed beside others that
        have not: whoever asks for it hears why it is not renewed. Raises NotYetError if all have
        ended, or no adapter was reached yet; HANDLE_EXPIRED if all have ended and the adapter gives
        no more.
        """
        if not self.known:
            raise self._not_yet()
        held = [one for _, one in sorted(self._by_grant.items()) if not one.gone]
        good = [one for one in held if not self._ended(one, now, skew)]
        if good or not held:
            return good if self.hindrance.final else held
        if self.hindrance.final:
            raise self._given_no_more()
        raise self._unrenewed(
            held[0], "All handles of this socket have ended and are not renewed yet"
        )

    def _ended(self, held: Held, now: float, skew: float) -> bool:
        """By the agent's clock. While renewals fail nothing is to be had from one past its end: the
        adapter's clock decides.
        """
        return now >= held.expires_at + (skew if self.hindrance.failure is None else 0.0)

    def _unrenewed(self, held: Held, what: str) -> FailureError:
        if held.taken_at < held.expires_at:
            return self.hindrance.over(what)
        ends, now = (
            time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
            for at in (held.expires_at, held.taken_at)
        )
        detail = (
            f"The handle that the adapter gave ends at {ends}, and this node's clock said "
            f"{now} when it came. Set the clock."
        )
        return NotYetError(failures_pb2.REASON_UPSTREAM_UNREACHABLE, detail, retry_after_ms=1000)

    def _not_yet(self) -> FailureError:
        return self.hindrance.over("The agent has just started and waits for its handles")

    def _given_no_more(self) -> FailureError:
        failure = self.hindrance.failure
        assert failure is not None
        said = failure.detail.removesuffix(failure.row.advice).strip()
        detail = (
            f"The handle has expired, and the adapter gives no new one: {failure.row.name}. {said}"
        )
        return FailureError(failures_pb2.REASON_HANDLE_EXPIRED, detail, field="handle_id")

    def offers(self, grant: str) -> bool:
        """Whether this socket offers a grant."""
        return not self.grants or grant in self.grants

    def put(self, issued: Issued, rate: RateLimit, mint_public_key: bytes, now: float) -> None:
        """Take a new or renewed handle. Raises ValueError if it cannot be narrowed; then the old
        one stays.
        """
        ends = self.narrowing.ends(now, issued.expires_at.ToMilliseconds() / 1000)
        token = self.narrowing.apply(issued.token, mint_public_key, ends)
        held = self._by_grant.get(issued.grant)
        if held is None:
            held = self._by_grant[issued.grant] = Held(self.name, issued.grant, rate)
            self._by_id[held.id] = held
        algorithms = self.narrowing.kept(frozenset(issued.algorithms))
        held.rule = Rule(issued.purpose, algorithms, issued.context_rule, self.narrowing.role)
        held.issued, held.token, held.algorithms, held.expires_at = issued, token, algorithms, ends
        held.taken_at, held.gone = now, failures_pb2.REASON_UNSPECIFIED

    def drop(self, grant: str, reason: failures_pb2.Reason.ValueType) -> None:
        """Forget the token of a grant; its id answers with the reason from now on."""
        held = self._by_grant.get(grant)
        if held is not None:
            held.gone, held.token = reason, b""


class HandleBook:
    """All handles of this agent."""

    def __init__(self, sockets: Iterable[SocketHandles]) -> None:
        self._sockets = tuple(sockets)
        self.hindrance = Hindrance()
        for socket in self._sockets:
            socket.hindrance = self.hindrance
        self._issued: dict[str, Issued] = {}
        self._rates: dict[str, RateLimit] = {}
        self._mint = b""
        self._received_at: dict[str, float] = {}

    @property
    def sockets(self) -> tuple[SocketHandles, ...]:
        return self._sockets

    @property
    def issued(self) -> Mapping[str, Issued]:
        """What the adapter issued, by grant, not narrowed."""
        return MappingProxyType(self._issued)

    @property
    def wanted(self) -> list[str]:
        """The grants to ask for; empty: all."""
        if any(not one.grants for one in self._sockets):
            return []
        return sorted(set().union(*(one.grants for one in self._sockets)))

    def replace(self, issued: Iterable[Issued], now: float, mint_public_key: bytes = b"") -> None:
        """Take a full set: what is not in it was withdrawn. Raises ValueError if one cannot be
        narrowed; the others are taken.
        """
        self._mint = mint_public_key or self._mint
        for socket in self._sockets:
            socket.known = True
        self.renewed(list(self._issued), issued, now)

    def renewed(self, asked: Iterable[str], issued: Iterable[Issued], now: float) -> None:
        """Take the answer to a renewal of these grants: what is not in it was withdrawn. Raises
        ValueError as `replace` does.
        """
        fresh = {one.grant: one for one in issued}
        for grant in set(asked) - fresh.keys():
            self.drop_grant(grant)
        spoiled: ValueError | None = None
        for one in fresh.values():
            try:
                self._put(one, now)
            except ValueError as error:
                spoiled = error
        if spoiled is not None:
            raise spoiled

    def _put(self, one: Issued, now: float) -> None:
        """Take one handle for every socket that offers its grant. Raises ValueError."""
        grant = one.grant
        rate = self._rates.get(grant)
        if rate is None:
            rate = self._rates[grant] = RateLimit(one.rate_per_second, one.burst, now)
        rate.change(one.rate_per_second, one.burst, now)
        for socket in self._sockets:
            if socket.offers(grant):
                socket.put(one, rate, self._mint, now)
        self._issued[grant], self._received_at[grant] = one, now

    def drop_grant(
        self, grant: str, reason: failures_pb2.Reason.ValueType = failures_pb2.REASON_HANDLE_REVOKED
    ) -> None:
        """The adapter withdrew a grant."""
        self._issued.pop(grant, None)
        self._received_at.pop(grant, None)
        for socket in self._sockets:
            socket.drop(grant, reason)

    def drop_serials(self, serials: Iterable[bytes]) -> int:
        """The adapter withdrew handles by serial; returns how many of ours they were."""
        gone = set(serials)
        grants = [grant for grant, one in self._issued.items() if one.serial in gone]
        for grant in grants:
            self.drop_grant(grant)
        return len(grants)

    def drop_all(self) -> None:
        """Everything was withdrawn."""
        for grant in list(self._issued):
            self.drop_grant(grant)

    def usable(self, now: float) -> int:
        """How many handles are good now."""
        return sum(now < one.expires_at.ToMilliseconds() / 1000 for one in self._issued.values())

    def age(self, now: float) -> float:
        """Seconds since the oldest handle held was issued; 0 without any."""
        return now - min(self._received_at.values(), default=now)

    def half_life(self) -> float:
        """When the first handle reaches half of its life, seconds since 1970; 0 if there is
        none.
        """
        return min(map(self._half_of, self._issued), default=0.0)

    def due(self, now: float) -> list[str]:
        """The grants whose handles are near or past half of their life."""
        return [
            grant
            for grant in self._issued
            if now >= self._half_of(grant) - (now - self._received_at[grant]) * 0.2
        ]

    def _half_of(self, grant: str) -> float:
        """A socket that shortens lives (`narrow.ttl_s`) brings this forward: its handles are
        narrowed anew at renewal.
        """
        start = self._received_at[grant]
        lives = [self._issued[grant].expires_at.ToMilliseconds() / 1000 - start]
        lives += [
            one.narrowing.ttl_s
            for one in self._sockets
            if one.narrowing.ttl_s and one.offers(grant)
        ]
        return start + min(lives) / 2
