"""What an administrative act or a proposal was on, under the names of an event: who asks about a
key is told that it was revoked, and that its tenant was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from capsign_evidence.leaf_kinds import Act, ProposedAct


def of_act(act: Act, target: str) -> dict[str, Any]:
    """Fields of an event that the target of an act says; none where it is not of that form."""
    reader = TARGETS.get(act)
    return reader(target) if reader else {}


def of_proposal(act: ProposedAct, target: str) -> dict[str, Any]:
    """The same of what is proposed."""
    return PROPOSED[act](target)


def _key(target: str) -> dict[str, Any]:
    """`tenant/key`, or `tenant/key/version`."""
    tenant, *rest = target.split("/")
    if len(rest) == 1:
        return {"tenant": tenant, "key": rest[0]}
    if len(rest) == 2 and rest[1].isdigit():
        return {"tenant": tenant, "key": rest[0], "key_version": int(rest[1])}
    return {}


def _tenant(target: str) -> dict[str, Any]:
    return {"tenant": target}


def _grant(target: str) -> dict[str, Any]:
    return {"grant": target}


def _workload(target: str) -> dict[str, Any]:
    return {"workload": target}


def _handle(target: str) -> dict[str, Any]:
    return {"handle_serial": _hex(target)}


def _lifted(target: str) -> dict[str, Any]:
    """A revocation, with its kind before it; a SPIFFE ID and `*` have none."""
    if target.startswith("spiffe://"):
        return _workload(target)
    kind, _, rest = target.partition("/")
    reader = _KINDS.get(kind)
    return reader(rest) if reader else {}


def _closed(target: str) -> dict[str, Any]:
    """`incident/<kind>/<leaf that says it was found>`."""
    last = target.rpartition("/")[2]
    return {"names_leaf": int(last)} if last.isdigit() else {}


def _reported(target: str) -> dict[str, Any]:
    """`incident/<kind>/<SHA-256 of a signature>`."""
    return {"signature_hash": _hex(target.rpartition("/")[2])}


def _proposal(target: str) -> dict[str, Any]:
    return {"proposal_id": _hex(target)}


def _nothing(_: str) -> dict[str, Any]:
    return {}


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


Reader = Callable[[str], dict[str, Any]]

_KINDS: Mapping[str, Reader] = {
    "handle": _handle,
    "grant": _grant,
    "key": _key,
    "key-version": _key,
    "tenant": _tenant,
}
"""Words of revocations that stand before their target."""

TARGETS: Mapping[Act, Reader] = MappingProxyType(
    {
        Act.KEY_CREATED: _key,
        Act.KEY_PUBLISHED: _key,
        Act.KEY_ACTIVATED: _key,
        Act.KEY_SUSPENDED: _key,
        Act.KEY_RESUMED: _key,
        Act.KEY_DEACTIVATED: _key,
        Act.KEY_COMPROMISED: _key,
        Act.KEY_DESTROYED: _key,
        Act.KEY_GONE: _key,
        Act.KEY_REVOKED: _key,
        Act.KEY_VERSION_REVOKED: _key,
        Act.KEY_MOVE_REFUSED: _key,
        Act.ROLLOUT_MOVE_REFUSED: _key,
        Act.HANDLE_REVOKED: _handle,
        Act.GRANT_REVOKED: _grant,
        Act.WORKLOAD_REVOKED: _workload,
        Act.TENANT_REVOKED: _tenant,
        Act.TENANT_ERASED: _tenant,
        Act.PEPPER_GONE: _tenant,
        Act.COMMITMENTS_TOLD: _tenant,
        Act.EVERYTHING_REVOKED: _nothing,
        Act.REVOCATION_LIFTED: _lifted,
        Act.INCIDENT_CLOSED: _closed,
        Act.SIGNATURE_REPORTED: _reported,
        Act.PROPOSAL_MOVE_REFUSED: _proposal,
        Act.POLICY_PROPOSED: _nothing,
        Act.POLICY_APPLIED: _nothing,
        Act.POLICY_ENDED: _nothing,
        Act.POLICY_FILE_DIFFERS: _nothing,
        Act.LOG_OPENED: _nothing,
        Act.AUTHORITY_PREPARED: _nothing,
        Act.AUTHORITY_ACTIVATED: _nothing,
        Act.AUTHORITY_RETIRED: _nothing,
    }
)
"""By every act that an entry of kind ADMIN may have."""

PROPOSED: Mapping[ProposedAct, Reader] = MappingProxyType(
    {
        ProposedAct.POLICY: _nothing,
        ProposedAct.KEY_DESTROY: _key,
        ProposedAct.REVOCATION_LIFT: _lifted,
        ProposedAct.TENANT_ERASE: _tenant,
    }
)
