"""To erase a tenant, as an act of two people: its pepper is destroyed, and with it all versions of
its keys, so that nobody can show any more which message an entry of the log is about.

The keys go too because a signature of a deterministic algorithm can be made again: whoever may sign
could try messages and compare the signature's hash with the log's. In the store all of it happens
in the transaction that executes the proposal; in the token right after that, by every replica that
finds something left there, whether from a crash or from a copy of the token that was put back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from capsign_evidence.leaf_kinds import Act
from capsign_wire import logs
from capsign_wire.adapter.v1 import approvals_pb2, tenants_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.custody.attempts import each
from capsign_adapter.custody.making import Author, clock_of
from capsign_adapter.keys import labels
from capsign_adapter.keys.commitment import KEY_DOMAIN
from capsign_adapter.model.erasures import Erasure
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import KEY_VERSION, KeyEvent
from capsign_adapter.model.proposals import ProposalRow
from capsign_adapter.store import erasures, key_claims, key_versions
from capsign_adapter.store.executors import Executor
from capsign_adapter.store.interfaces.database import Database
from capsign_adapter.store.interfaces.erasures import Erasures
from capsign_adapter.store.transaction import Head, Reader, Transaction
from capsign_adapter.token.interface import KeyMissingError, Token

ACT = approvals_pb2.PROPOSAL_ACT_TENANT_ERASE


class ErasureStore(Erasures, Database, Protocol):
    """What is asked of the store here."""


def payload_of(tenant: str) -> bytes:
    """Returns what a proposal says will be erased."""
    return tenants_pb2.EraseTenantRequest(tenant=tenant).SerializeToString(deterministic=True)


def executor(author: Callable[[str], Author], executed: Callable[[ProposalRow], None]) -> Executor:
    """Returns how a tenant is erased. `author` makes the one in whose name its leaves stand;
    `executed` follows when it is in force on every replica.
    """

    def execute(tx: Transaction, head: Head, row: ProposalRow, now_ms: int) -> None:
        tenant, by = _tenant(row), author(row.proposer)

        def entry(act: Act, name: str) -> Callable[[int], bytes]:
            return lambda epoch: by.entry(act, name, now_ms, epoch)

        for version in _versions(tx, tenant):
            if not KEY_VERSION.is_final(version.state):
                destroyed = entry(Act.KEY_DESTROYED, version.name)
                key_versions.move(tx, head, version, KeyEvent.DESTROY, destroyed, now_ms)
        erasures.add(tx, head, tenant, entry(Act.TENANT_ERASED, tenant), now_ms)

    return Executor(_words, _state, execute, executed)


def _tenant(row: ProposalRow) -> str:
    return tenants_pb2.EraseTenantRequest.FromString(row.payload).tenant


def _versions(tx: Reader, tenant: str) -> list[KeyVersionRow]:
    return [row for row in key_versions.every(tx) if row.tenant == tenant]


def _words(row: ProposalRow) -> Sequence[str]:
    tenant = _tenant(row)
    return [
        f"The pepper of the tenant {tenant} is destroyed for good: nobody can show any more, or "
        "learn by trying, which message an entry of the log is about.",
        f"Every version of every key of {tenant} is destroyed with it.",
        f"Nothing is signed for a tenant of the name {tenant} again, and the name is not given "
        "again.",
        "The log stays as it is: entries, proofs and receipts verify.",
    ]


def _state(tx: Reader, row: ProposalRow) -> bytes:
    """Returns names, states and identities of all versions: an approval is for no other keys.

    Raises FailureError TENANT_ERASED, TENANT_IN_USE if a version may sign yet or is being made,
    NOT_FOUND if the store has no key of such a tenant.
    """
    tenant = _tenant(row)
    if erasures.find(tx, tenant) is not None:
        detail = f"The tenant {tenant} is erased already."
        raise FailureError(failures_pb2.REASON_TENANT_ERASED, detail, field="tenant")
    versions = _versions(tx, tenant)
    if not versions:
        detail = f"The store has no key of a tenant {tenant}."
        raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="tenant")
    in_use = [
        one.name
        for one in versions
        if not KEY_VERSION.is_final(one.state)
        and KeyEvent.DESTROY not in KEY_VERSION.moves[one.state]
    ]
    in_use += [
        f"{one.tenant}/{one.key}/{one.version}"
        for one in key_claims.every(tx)
        if one.tenant == tenant
    ]
    if in_use:
        _refuse_in_use(in_use)
    return b"".join(
        one.name.encode() + int(one.state).to_bytes(8, "big") + one.check_value for one in versions
    )


def _refuse_in_use(names: Sequence[str]) -> NoReturn:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    detail = f"These versions may sign yet: {', '.join(names[:3])}{more}."
    raise FailureError(failures_pb2.REASON_TENANT_IN_USE, detail, field="tenant")


class PepperClearing:
    """Ends in the token what was erased in the store, and has it shown to be gone. Of one replica;
    any thread may call `look`.
    """

    def __init__(
        self,
        token: Token,
        store: ErasureStore,
        author: Callable[[], Author],
        clock: Callable[[], int],
        found: Callable[[str], None],
    ) -> None:
        """`author` is in whose name the proofs stand; `found` is told of a pepper that answers
        though it was destroyed.
        """
        self._token = token
        self._store = store
        self._author = author
        self._clock = clock
        self._found = found
        self._seen_gone: set[str] = set()
        self._turn = threading.Lock()

    def look(self, erased: Sequence[Erasure]) -> None:
        """Finish what is left to do about `erased`. Raises what token and store raise, the last
        once all was tried.
        """
        with self._turn:
            waiting = [one for one in erased if one.tenant not in self._seen_gone]
            if not waiting:
                return
            held = set(self._token.labels())
            each(waiting, lambda one: self._clear(one, held))

    def _clear(self, one: Erasure, held: set[str]) -> None:
        label = labels.pepper(one.tenant)
        if label in held:
            try:
                self._token.destroy(label)
            except KeyMissingError:  # another replica was first
                pass
            else:
                logs.warning("pepper.destroyed", tenant=one.tenant)
        if self._answers(label):
            self._found(label)
            return
        if not one.gone_ms:
            self._prove(one.tenant)
        self._seen_gone.add(one.tenant)

    def _answers(self, label: str) -> bool:
        """Whether the token lists it, or this session still uses it when it is asked to."""
        if label in self._token.labels():
            return True
        try:
            self._token.hmac(label, KEY_DOMAIN)
        except KeyMissingError:
            return False
        return True

    def _prove(self, tenant: str) -> None:
        author, now_ms = self._author(), clock_of(self._store, self._clock)
        try:
            self._store.prove_erased(
                tenant,
                lambda epoch: author.entry(Act.PEPPER_GONE, tenant, now_ms, epoch),
                now_ms,
            )
        except FailureError as error:
            if error.reason != failures_pb2.REASON_ILLEGAL_TRANSITION:
                raise
            return  # another replica was first
        logs.event("pepper.gone", tenant=tenant)
