"""Checks the target of a revocation: it must have the form of its kind, and must exist where that
can be known.

In an emergency a typing error must not look like a successful revocation. Whether a handle or
workload exists cannot be known: serials are not stored, and a workload may be in a policy that
another replica has. So an unknown workload is refused only if the caller asks for that.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from capsign_evidence.leaf_fields import NAME
from capsign_wire import svid
from capsign_wire.adapter.v1 import admin_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.policy_shape import did_you_mean
from capsign_adapter.decide.revoked import EVERYTHING, RevocationIndex

MAX_HINT = 160
"""Longest list of existing names in a hint, characters; a longer one is left out."""


@dataclass(frozen=True, slots=True)
class _Form:
    pattern: re.Pattern[str]
    like: str


_FORMS: Mapping[int, _Form] = MappingProxyType(
    {
        pb.REVOCATION_KIND_HANDLE: _Form(
            re.compile(r"[0-9a-f]{32}", re.ASCII),
            "A handle is revoked by its serial: 32 digits of hexadecimal in lower case.",
        ),
        pb.REVOCATION_KIND_GRANT: _Form(
            NAME, "A grant is revoked by its name in the policy, such as orders-jwt."
        ),
        pb.REVOCATION_KIND_WORKLOAD: _Form(
            svid.SPIFFE_ID,
            "A workload is revoked by its SPIFFE ID, such as "
            "spiffe://example.org/ns/shop/sa/orders.",
        ),
        pb.REVOCATION_KIND_KEY: _Form(
            re.compile(f"{NAME.pattern}/{NAME.pattern}", re.ASCII),
            "A key is revoked as tenant/key, such as shop/orders.",
        ),
        pb.REVOCATION_KIND_KEY_VERSION: _Form(
            re.compile(f"{NAME.pattern}/{NAME.pattern}/[1-9][0-9]{{0,9}}", re.ASCII),
            "A version of a key is revoked as tenant/key/version, such as shop/orders/3.",
        ),
        pb.REVOCATION_KIND_TENANT: _Form(
            NAME, "A tenant is revoked by its name in the policy, such as shop."
        ),
        pb.REVOCATION_KIND_EVERYTHING: _Form(
            re.compile(re.escape(EVERYTHING)), "Everything is revoked as *."
        ),
    }
)
"""Made from the patterns that log entries demand, so that every valid target can be recorded."""


def target_in_log(kind: int, target: str) -> str:
    """Returns the target with its kind before it, as an entry about lifting names it:
    `key/shop/orders`. A SPIFFE ID and `*` say by themselves what they are.
    """
    if kind in {pb.REVOCATION_KIND_WORKLOAD, pb.REVOCATION_KIND_EVERYTHING}:
        return target
    return f"{kind_name(kind)}/{target}"


def kind_name(kind: int) -> str:
    """Returns the word for a kind: `key-version`."""
    name = pb.RevocationKind.Name(pb.RevocationKind.ValueType(kind))
    return name.removeprefix("REVOCATION_KIND_").lower().replace("_", "-")


def check_form(kind: int, target: str) -> None:
    """Raises FailureError INPUT_MALFORMED, whose sentence gives the form of a target of that
    kind.
    """
    form = _FORMS.get(kind)
    if form is None:
        raise FailureError(
            failures_pb2.REASON_INPUT_MALFORMED,
            "There is no such kind of revocation.",
            field="kind",
        )
    if not form.pattern.fullmatch(target):
        raise FailureError(failures_pb2.REASON_INPUT_MALFORMED, form.like, field="target")


def demand_known(
    kind: int,
    target: str,
    policy: Policy,
    keys: Collection[tuple[str, str]],
    revoked: RevocationIndex,
    *,
    workloads: bool = False,
    versions: Collection[str] = (),
) -> None:
    """Raises FailureError NOT_FOUND if neither policy nor store has a grant, key, version or tenant
    of that name; with `workloads` also if this policy has no such workload.

    `keys` are those of the store, (tenant, key), `versions` as tenant/key/version. What was revoked
    before may be revoked again, whether or not it is still there.
    """
    if kind == pb.REVOCATION_KIND_GRANT:
        what, names = "a grant", {grant.name for grant in policy.grants}
    elif kind == pb.REVOCATION_KIND_KEY:
        what, names = (
            "a key",
            {
                f"{tenant}/{key}"
                for tenant, key in {*keys, *((key.tenant, key.name) for key in policy.keys)}
            },
        )
    elif kind == pb.REVOCATION_KIND_KEY_VERSION:
        what, names = "a version of a key", set(versions)
    elif kind == pb.REVOCATION_KIND_TENANT:
        what, names = "a tenant", {*policy.tenants, *(tenant for tenant, _ in keys)}
    elif kind == pb.REVOCATION_KIND_WORKLOAD and workloads:
        what, names = (
            "a workload",
            {*policy.roles, *(one for grant in policy.grants for one in grant.workloads)},
        )
    else:
        return
    if target in names or revoked.has(kind, target):
        return
    hint = did_you_mean(target, names)
    sentence = (
        f"Nothing was revoked: neither the policy of this replica nor the store has {what} of "
        f"that name."
    )
    if len(hint) <= MAX_HINT:
        sentence = f"{sentence} {hint}".strip()
    raise FailureError(failures_pb2.REASON_NOT_FOUND, sentence, field="target")
