"""Which objects the token should hold, from what the store has."""

from __future__ import annotations

from collections.abc import Iterable

from capsign_wire.types.v1 import signing_pb2

from capsign_adapter.decide.drift_token import Accounted
from capsign_adapter.keys import labels
from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.erasures import Erasure
from capsign_adapter.model.key_versions import KeyClaim, KeyVersionRow
from capsign_adapter.model.lifecycle import AuthorityState


def accounted(
    rows: tuple[KeyVersionRow, ...],
    tenants: Iterable[str],
    authorities: Iterable[AuthorityRow] = (),
    claims: Iterable[KeyClaim] = (),
    erasures: Iterable[Erasure] = (),
) -> Accounted:
    """What must be there, and what may be: the key of a retired authority, since nobody trusts it;
    what is being made under a claim; what is destroyed in the store and about to be in the token;
    what keeps the number of a destroyed version. Versions, and peppers of erased tenants, that were
    shown to be gone may not.
    """
    ended = {one.tenant: one for one in erasures}
    required = {labels.LOG, labels.LOG_ROOT, labels.MINT}
    required.update(labels.pepper(row.tenant) for row in rows if row.tenant not in ended)
    known = required | {labels.pepper(tenant) for tenant in tenants if tenant not in ended}
    known |= {labels.pepper(one.tenant) for one in ended.values() if not one.gone_ms}
    for authority in authorities:
        known.add(authority.label)
        if authority.state != AuthorityState.RETIRED:
            required.add(authority.label)
    highest: dict[tuple[str, str], int] = {}
    for row in rows:
        name = row.tenant, row.key
        highest[name] = max(row.version, highest.get(name, 0))
        objects = _objects(row.label) if row.derived else (row.label,)
        if row.state != signing_pb2.KEY_STATE_DESTROYED:
            required.update(objects)
        if not row.gone_ms:
            known.update(_objects(row.label))
    for (tenant, key), newest in highest.items():
        for number in range(1, newest + 1):
            known.add(labels.spent(labels.key_version(tenant, key, number)))
    for one in claims:
        known.update(_objects(labels.key_version(one.tenant, one.key, one.version)))
    return Accounted(frozenset(required), frozenset(known), rows)


def _objects(label: str) -> tuple[str, str]:
    return label, labels.attestation(label)
