"""The table of what each kind of work costs the adapter, in microseconds of one CPU, known before
the work is done.

The figures were measured on one machine and are rounded up. Only their ratios matter: they are
compared with shares of one CPU (`budget.py`) and of turns (`sign/fair_scheduler.py`). A cost is
known from the request alone: from the number of its parts and their lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.types.v1 import algorithms_pb2 as algorithms

from capsign_adapter.algorithms.table import TABLE

CALL = 400
"""A unary call, from its headers to its answer, without what it asks for."""

BATCH, GROUP, ITEM = 300, 40, 6
"""Reading and answering a batch; each of its groups; each of its items."""

REFUSAL = 30
"""Refusing an item and recording it."""

VERIFY = 250
"""Verifying a handle of usual length that is not in the cache: one signature, and its facts."""

VERIFY_BYTE = 0.75
"""Each byte of a handle beyond USUAL: every block that an agent appends is another signature and
check.
"""

USUAL = 600
"""Bytes of a handle with one block and a few protocols."""

MINT = 250
"""A new handle."""

DERIVE = 400
"""Deriving a subkey that is not in the cache: one call of the token, and the import of a key."""

ATTEST = 600
"""Making an attestation that is not in the cache: a signature in the token."""

RECORD = 60
"""A leaf and a row."""

MAKE = 5_000
"""A version of a key: two objects made in the token and held against what a good key must be."""

READ = 150
"""One read of the store."""

CHECKPOINT = 800
"""A checkpoint of a log that has grown: a signature in the token, and a row."""

KIB = 3
"""Hashing or parsing a KiB."""

AUDIT_BYTE = 0.02
"""A byte of an agent's batch: parsed, hashed and stored."""

AUDIT_RECORD = 2
"""A call that its records tell of: checked against its bounds and canonical form, and read again by
whoever reads the batch.
"""

REVIEW = 2_000
"""Asking the cluster about one pod. Most of it is waiting, which costs no CPU here."""

_IN_MEMORY: Mapping[int, int] = {
    number: row.derived.cost_us for number, row in TABLE.items() if row.derived is not None
}
_IN_TOKEN: Mapping[int, int] = {
    number: row.in_token.cost_us if row.in_token is not None else row.inside_cost_us
    for number, row in TABLE.items()
    if row.in_token is not None or row.inside_cost_us
}
_DEAREST = max(*_IN_MEMORY.values(), *_IN_TOKEN.values())


def signature(algorithm: int, custody: int, size: int = 0) -> int:
    """Returns the cost of one signature over `size` bytes."""
    table = _IN_MEMORY if custody == algorithms.CUSTODY_CLASS_ADAPTER_MEMORY else _IN_TOKEN
    return table.get(algorithm, _DEAREST) + (size >> 10) * KIB


def verification(size: int) -> int:
    """Returns the cost of verifying a handle of `size` bytes that is not in the cache."""
    return VERIFY + int(max(0, size - USUAL) * VERIFY_BYTE)


def refusals(items: int) -> int:
    """Returns the cost of refusing items of one group and recording it."""
    return GROUP + items * REFUSAL


def first_use(attested: bool) -> int:
    """Returns the cost of a context's key that is not in the cache."""
    return DERIVE + (ATTEST if attested else 0)


def issue(grants: int) -> int:
    """Returns the cost of issuing handles for this many grants."""
    return grants * MINT


def records(calls: int) -> int:
    """Returns the cost of checking an agent's batch whose records tell of this many calls."""
    return calls * AUDIT_RECORD


def of_call(method: str, request: Any) -> int:
    """Returns the cost of a unary call. `verification`, `issue` and `first_use` are charged in
    addition, once it is known whether they are needed. Raises KeyError for a method without a
    price.
    """
    return CALL + _CALLS[method](request)


def _tag(request: Any) -> int:
    return signature(
        algorithms.ALGORITHM_HS256, algorithms.CUSTODY_CLASS_ADAPTER_MEMORY, len(request.message)
    )


def _public_keys(request: Any) -> int:
    return GROUP if request.algorithm in ALGORITHMS else 0


_CALLS: Mapping[str, Callable[[Any], int]] = {
    "ResolveIntent": lambda _: 2 * READ + RECORD,
    "GetPublicKeys": _public_keys,
    "GetJwks": lambda _: 4 * GROUP,
    "VerifyTag": _tag,
    "IssueHandles": lambda request: len(request.grants),
    "RenewHandles": lambda request: len(request.tokens) * GROUP,
    "Watch": lambda _: 0,
    "SubmitAudit": lambda request: RECORD + int(len(request.batch) * AUDIT_BYTE),
    "GetCheckpoint": lambda request: CHECKPOINT + bool(request.consistent_with) * 4 * READ,
    "GetTile": lambda _: 2 * READ,
    "GetEntries": lambda _: 4 * READ,
    "GetInclusionProof": lambda _: 4 * READ,
    "GetConsistencyProof": lambda _: 4 * READ,
    "GetReceipt": lambda _: CHECKPOINT + 5 * READ,
    "GetBatches": lambda _: 8 * READ,
    "GetSummaries": lambda _: 8 * READ,
    "Renew": lambda _: REVIEW + RECORD,
    "GetTrustBundle": lambda _: 0,
    "ListKeys": lambda _: READ,
    "Revoke": lambda _: READ + RECORD,
    "GetStatus": lambda _: READ,
    "ProposePolicy": lambda _: 8 * READ + 3 * RECORD,
    "PlanPolicy": lambda _: 8 * READ,
    "GetPolicy": lambda _: 2 * READ,
    "ListPolicies": lambda _: 2 * READ,
    "ListProposals": lambda _: 4 * READ,
    "GetProposal": lambda _: READ,
    "Approve": lambda _: 2 * READ + 2 * RECORD,
    "Reject": lambda _: READ + RECORD,
    "CallOff": lambda _: READ + RECORD,
    "BreakGlass": lambda _: 2 * READ + 2 * RECORD,
    "PreviewRevocation": lambda _: 4 * READ,
    "ListRevocations": lambda _: 4 * READ,
    "ProposeLift": lambda _: 2 * READ + RECORD,
    "Acknowledge": lambda _: READ + RECORD,
    "GetKey": lambda _: READ,
    "CreateKey": lambda _: MAKE + 3 * RECORD,
    "CreateKeyVersion": lambda _: MAKE + 3 * RECORD,
    "ChangeKeyVersion": lambda _: 2 * READ + RECORD,
    "WithdrawKeyVersion": lambda _: 2 * READ + RECORD,
    "DestroyKeyVersion": lambda _: 2 * READ + RECORD,
    "GetKeySet": lambda _: 4 * DERIVE,
    "GetInventory": lambda _: MAKE + 8 * READ,
    "ListDrift": lambda _: MAKE + 8 * READ,
    "ListIncidents": lambda _: 8 * READ,
    "CloseIncident": lambda _: 16 * READ,
    "ReportSignatures": lambda request: len(request.signature_hashes) * (READ + 2 * RECORD),
    "StartRollout": lambda _: 4 * READ + 4 * RECORD,
    "ListRollouts": lambda _: 8 * READ,
    "GetRollout": lambda _: 4 * READ,
    "PauseRollout": lambda _: 4 * READ + RECORD,
    "ResumeRollout": lambda _: 4 * READ + RECORD,
    "PromoteRollout": lambda _: 4 * READ + 2 * RECORD,
    "AbortRollout": lambda _: 4 * READ + 2 * RECORD,
    "UndoRollout": lambda _: 4 * READ + 4 * RECORD,
    "ReportVerifications": lambda _: READ + RECORD,
    "GetCommitments": lambda _: 8 * MAKE + RECORD,
    "EraseTenant": lambda _: 4 * READ + RECORD,
    "ListErasures": lambda _: READ,
}
