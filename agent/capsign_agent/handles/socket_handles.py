"""The handles of one socket. No I/O; time is an argument.

A handle keeps its id for the life of the agent; a renewal changes what is behind the id. A handle
that was dropped stays known, so that a caller hears "revoked" and not "unknown". One that ended
because it could not be renewed stays too: nobody withdrew it, so the failure is *unavailable*, with
the reason why it could not be renewed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.handles.contact import Contact
from capsign_agent.handles.held_handle import WITHDRAWN, HeldHandle, Issued, Revoked
from capsign_agent.handles.narrow import Narrowing
from capsign_agent.handles.rate_limit import RateLimit
from capsign_agent.handles.rules import Rule
from capsign_agent.handles.unavailable import LastError, NotYetError, said_in


class SocketHandles:
    """The handles of one socket."""

    def __init__(self, name: str, grants: Iterable[str], narrowing: Narrowing) -> None:
        self.name = name
        self.grants = frozenset(grants)
        self.narrowing = narrowing
        self.last_error = LastError()
        """Why the last fetch failed; `HandleRegistry` sets its own here, shared by all sockets."""
        self.contact = Contact()
        """When an adapter was last heard; set as `last_error` is."""
        self.known = False
        """Whether an adapter has said which handles there are. Until then an unknown id is not
        refused.
        """
        self._by_id: dict[str, HeldHandle] = {}
        self._by_grant: dict[str, HeldHandle] = {}

    def find(self, handle_id: str, now: float, skew: float) -> HeldHandle:
        """The handle with this id, if it is valid at `now`.

        Raises HANDLE_REVOKED; HANDLE_UNKNOWN, once an adapter has said which handles there are;
        HANDLE_EXPIRED, if the adapter gives no more; NotYetError, if it has ended and could not be
        renewed, or no adapter was heard for too long.
        """
        self.contact.demand()
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
            raise FailureError(held.gone, held.why or WITHDRAWN, field="handle_id")
        if now >= held.expires_at and self._ended(held, now, skew):
            if self.last_error.final:
                raise self._given_no_more()
            raise self._unrenewed(held, "The handle has ended and is not renewed yet")
        return held

    def listed(self, now: float, skew: float) -> list[HeldHandle]:
        """The handles that were not withdrawn, by grant. One that has ended is listed if others are
        valid: a call under it hears why it is not renewed.

        Raises NotYetError if all have ended, or no adapter was reached yet; HANDLE_EXPIRED if all
        have ended and the adapter gives no more.
        """
        self.contact.demand()
        if not self.known:
            raise self._not_yet()
        held = [one for _, one in sorted(self._by_grant.items()) if not one.gone]
        good = [one for one in held if not self._ended(one, now, skew)]
        if good or not held:
            return good if self.last_error.final else held
        if self.last_error.final:
            raise self._given_no_more()
        raise self._unrenewed(
            held[0], "All handles of this socket have ended and are not renewed yet"
        )

    def withdrawn(self) -> list[HeldHandle]:
        """Those that were withdrawn, by grant, unless another that is good has their purpose: who
        means them hears why, and who means the purpose gets the good one.
        """
        every = [held for _, held in sorted(self._by_grant.items())]
        good = {held.issued.purpose for held in every if not held.gone}
        return [held for held in every if held.gone and held.issued.purpose not in good]

    def _ended(self, held: HeldHandle, now: float, skew: float) -> bool:
        """Whether it has ended by the agent's clock. The skew is allowed only while renewals
        succeed, because then the adapter's clock decides.
        """
        return now >= held.expires_at + (skew if self.last_error.failure is None else 0.0)

    def _unrenewed(self, held: HeldHandle, what: str) -> FailureError:
        if held.taken_at < held.expires_at:
            return self.last_error.unavailable(what)
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
        return self.last_error.unavailable("The agent has just started and waits for its handles")

    def _given_no_more(self) -> FailureError:
        failure = self.last_error.failure
        assert failure is not None
        said = said_in(failure)
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
            held = self._by_grant[issued.grant] = HeldHandle(self.name, issued.grant, rate)
            self._by_id[held.id] = held
        algorithms = self.narrowing.kept(frozenset(issued.algorithms))
        held.rule = Rule(issued.purpose, algorithms, issued.context_rule, self.narrowing.role)
        held.issued, held.token, held.algorithms, held.expires_at = issued, token, algorithms, ends
        held.taken_at, held.gone, held.why = now, failures_pb2.REASON_UNSPECIFIED, ""

    def withdraw(self, revoked: Revoked, rate: RateLimit) -> None:
        """The adapter gives no handle of a grant, and says why: its id, which may be new, answers
        with that from now on.
        """
        held = self._by_grant.get(revoked.grant)
        if held is None:
            held = self._by_grant[revoked.grant] = HeldHandle(self.name, revoked.grant, rate)
            self._by_id[held.id] = held
            held.issued = Issued(grant=revoked.grant, purpose=revoked.purpose)
            held.algorithms = self.narrowing.kept(frozenset(revoked.algorithms))
            held.rule = Rule(revoked.purpose, held.algorithms, held.issued.context_rule)
        held.gone, held.why = failures_pb2.REASON_HANDLE_REVOKED, revoked.words
        held.token = b""

    def drop(self, grant: str, reason: failures_pb2.Reason.ValueType) -> None:
        """Remove the token of a grant; its id answers with this reason from now on."""
        held = self._by_grant.get(grant)
        if held is not None:
            held.gone, held.why, held.token = reason, "", b""
