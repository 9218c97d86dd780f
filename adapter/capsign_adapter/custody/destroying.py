"""To destroy a version of a key, as an act of two people: what is proposed, and what its execution
writes.

In the store it is destroyed in the transaction that executes the proposal; in the token right after
that, by `clearing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from capsign_evidence.leaf_kinds import Act
from capsign_wire.adapter.v1 import approvals_pb2, keys_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.custody.making import Author
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import KEY_VERSION, KeyEvent, move
from capsign_adapter.model.proposals import ProposalRow
from capsign_adapter.store import key_versions
from capsign_adapter.store.executors import Executor
from capsign_adapter.store.interfaces.proposals import Proposals
from capsign_adapter.store.transaction import Head, Reader, Transaction

ACT = approvals_pb2.PROPOSAL_ACT_KEY_DESTROY


def payload_of(row: KeyVersionRow) -> bytes:
    """Returns what a proposal says will be destroyed."""
    name = keys_pb2.KeyVersionName(tenant=row.tenant, key=row.key, version=row.version)
    return name.SerializeToString(deterministic=True)


@dataclass(frozen=True, slots=True)
class Pending:
    """The destructions that are proposed or wait for their time."""

    store: Proposals

    def of(self, tenant: str, key: str) -> list[ProposalRow]:
        """Returns the destructions of versions of this key."""
        prefix = f"{tenant}/{key}/"
        return [
            row
            for row in self.store.proposals(waiting=True)
            if row.act == ACT and row.is_open and row.target.startswith(prefix)
        ]

    def demand_none(self, row: KeyVersionRow) -> None:
        """Raise FailureError KEY_DESTROY_PENDING if this version is to be destroyed: who would use
        it says so first.
        """
        for proposal in self.of(row.tenant, row.key):
            if proposal.target == row.name:
                detail = f"Proposal {proposal.id.hex()} is to destroy {row.name}."
                raise FailureError(failures_pb2.REASON_KEY_DESTROY_PENDING, detail)


def executor(author: Callable[[str], Author], executed: Callable[[ProposalRow], None]) -> Executor:
    """Returns how a destruction is done. `author` makes the one in whose name its leaf stands;
    `executed` follows when it is in force on every replica.
    """

    def execute(tx: Transaction, head: Head, row: ProposalRow, now_ms: int) -> None:
        def entry(epoch: int) -> bytes:
            act = Act.KEY_DESTROYED
            return author(row.proposer).entry(act, row.target, now_ms, epoch)

        key_versions.move(tx, head, _version(tx, row), KeyEvent.DESTROY, entry, now_ms)

    return Executor(_words, _state, execute, executed)


def _words(row: ProposalRow) -> Sequence[str]:
    name = keys_pb2.KeyVersionName.FromString(row.payload)
    return [
        f"Version {name.version} of the key {name.tenant}/{name.key} is destroyed for good.",
        "The token destroys its objects. No backup of this adapter brings them back.",
        "Its public keys cannot be derived any more: what it signed verifies only with keys that "
        "verifiers have kept.",
    ]


def _state(tx: Reader, row: ProposalRow) -> bytes:
    """Returns state and identity of the version: an approval is for nothing else."""
    version = _version(tx, row)
    move(KEY_VERSION, version.state, KeyEvent.DESTROY)
    parts = (int(version.state), version.published_ms)
    return b"".join(part.to_bytes(8, "big") for part in parts) + version.check_value


def _version(tx: Reader, row: ProposalRow) -> KeyVersionRow:
    name = keys_pb2.KeyVersionName.FromString(row.payload)
    found = key_versions.find(tx, name.tenant, name.key, name.version)
    return found if found is not None else _absent(row.target)


def _absent(name: str) -> NoReturn:
    raise FailureError(failures_pb2.REASON_NOT_FOUND, f"There is no version {name}.")
