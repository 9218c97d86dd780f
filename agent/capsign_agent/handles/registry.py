"""All handles of this agent, by grant. No I/O; time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from capsign_wire.types.v1 import failures_pb2

from capsign_agent.handles.contact import Contact
from capsign_agent.handles.held_handle import Issued, Revoked
from capsign_agent.handles.rate_limit import RateLimit
from capsign_agent.handles.socket_handles import SocketHandles
from capsign_agent.handles.unavailable import LastError


class HandleRegistry:
    """The handles that the adapter issued, and those of each socket."""

    def __init__(self, sockets: Iterable[SocketHandles], contact: Contact | None = None) -> None:
        self._sockets = tuple(sockets)
        self.last_error = LastError()
        self.contact = contact or Contact()
        for socket in self._sockets:
            socket.last_error, socket.contact = self.last_error, self.contact
        self._issued: dict[str, Issued] = {}
        self._rates: dict[str, RateLimit] = {}
        self._mint = b""
        self._received_at: dict[str, float] = {}

    @property
    def sockets(self) -> tuple[SocketHandles, ...]:
        return self._sockets

    @property
    def issued(self) -> Mapping[str, Issued]:
        """The handles as the adapter issued them, not narrowed, by grant."""
        return MappingProxyType(self._issued)

    @property
    def wanted(self) -> list[str]:
        """The grants to ask the adapter for; empty means all."""
        if any(not one.grants for one in self._sockets):
            return []
        return sorted(set().union(*(one.grants for one in self._sockets)))

    def replace(
        self,
        issued: Iterable[Issued],
        now: float,
        mint_public_key: bytes = b"",
        revoked: Iterable[Revoked] = (),
    ) -> None:
        """Take a full set; a grant that is not in it was withdrawn, and `revoked` says why of some.
        Raises ValueError if a handle cannot be narrowed; the others are taken.
        """
        self._mint = mint_public_key or self._mint
        for socket in self._sockets:
            socket.known = True
        try:
            self.renewed(list(self._issued), issued, now)
        finally:
            for one in revoked:
                self._withdraw(one, now)

    def _withdraw(self, revoked: Revoked, now: float) -> None:
        rate = self._rates.setdefault(revoked.grant, RateLimit(0, 0, now))
        for socket in self._sockets:
            if socket.offers(revoked.grant):
                socket.withdraw(revoked, rate)

    def renewed(self, asked: Iterable[str], issued: Iterable[Issued], now: float) -> None:
        """Take the answer to a renewal of these grants; a grant that is not in it was withdrawn.
        Raises ValueError as `replace` does.
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
        """The adapter withdrew a grant; its handles answer with `reason` from now on."""
        self._issued.pop(grant, None)
        self._received_at.pop(grant, None)
        for socket in self._sockets:
            socket.drop(grant, reason)

    def drop_serials(self, serials: Iterable[bytes]) -> int:
        """The adapter withdrew handles by serial; returns how many of them were held here."""
        gone = set(serials)
        grants = [grant for grant, one in self._issued.items() if one.serial in gone]
        for grant in grants:
            self.drop_grant(grant)
        return len(grants)

    def drop_all(self) -> None:
        """The adapter withdrew everything."""
        for grant in list(self._issued):
            self.drop_grant(grant)

    def usable(self, now: float) -> int:
        """How many handles are valid now."""
        return sum(now < one.expires_at.ToMilliseconds() / 1000 for one in self._issued.values())

    def age(self, now: float) -> float:
        """Seconds since the oldest handle was received; 0 if there is none."""
        return now - min(self._received_at.values(), default=now)

    def half_life(self) -> float:
        """When the first handle reaches half of its lifetime, seconds since 1970; 0 if there is
        none.
        """
        return min(map(self._half_of, self._issued), default=0.0)

    def due(self, now: float) -> list[str]:
        """The grants whose handles are near or past half of their lifetime."""
        return [
            grant
            for grant in self._issued
            if now >= self._half_of(grant) - (now - self._received_at[grant]) * 0.2
        ]

    def _half_of(self, grant: str) -> float:
        """When half of this grant's lifetime is over. `narrow.ttl_s` of a socket makes it earlier,
        because that socket's handle is narrowed anew at renewal only.
        """
        start = self._received_at[grant]
        lives = [self._issued[grant].expires_at.ToMilliseconds() / 1000 - start]
        lives += [
            one.narrowing.ttl_s
            for one in self._sockets
            if one.narrowing.ttl_s and one.offers(grant)
        ]
        return start + min(lives) / 2
