"""All revocations in one immutable index, which is replaced as a whole when the epoch moves.

A revocation holds for every handle that it covers, whenever it was minted: a replica that had not
yet heard of it may have minted one later. While a grant, workload, key,
tenant or everything is revoked, nothing new is issued under it; the revocation of one handle
withdraws that serial only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from capsign_wire.adapter.v1 import admin_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.capability import Capability
from capsign_adapter.decide.policy import Grant
from capsign_adapter.model.control import Revocation
from capsign_adapter.model.erasures import Erasure

EVERYTHING = "*"
"""The target that revokes everything."""

_WORDS = {
    pb.REVOCATION_KIND_HANDLE: "This handle",
    pb.REVOCATION_KIND_GRANT: "The grant of this handle",
    pb.REVOCATION_KIND_WORKLOAD: "This workload",
    pb.REVOCATION_KIND_KEY: "The key of this handle",
    pb.REVOCATION_KIND_TENANT: "The tenant of this handle",
    pb.REVOCATION_KIND_EVERYTHING: "Everything",
    pb.REVOCATION_KIND_KEY_VERSION: "This version of the key",
}


class RevocationIndex:
    """All revocations up to `epoch`. Safe for any thread."""

    __slots__ = ("_erased", "_found", "epoch", "names_versions")

    def __init__(
        self,
        epoch: int,
        revocations: Iterable[Revocation] = (),
        erasures: Iterable[Erasure] = (),
    ) -> None:
        found: dict[tuple[int, str], Revocation] = {}
        for each in revocations:
            if each.kind not in _WORDS:
                raise ValueError(
                    f"revocation of kind {each.kind}, which this version does not know: "
                    f"refuse to start, do not skip it"
                )
            target = EVERYTHING if each.kind == pb.REVOCATION_KIND_EVERYTHING else each.target
            found[
                each.kind, target.lower() if each.kind == pb.REVOCATION_KIND_HANDLE else target
            ] = each
        kind = pb.REVOCATION_KIND_TENANT
        self._erased: Mapping[str, Revocation] = MappingProxyType(
            {
                each.tenant: Revocation(each.epoch, kind, each.tenant, each.erased_ms, erases=True)
                for each in erasures
            }
        )
        self.epoch = epoch
        self.names_versions = any(kind == pb.REVOCATION_KIND_KEY_VERSION for kind, _ in found)
        """Whether any single version of a key is revoked."""
        self._found: Mapping[tuple[int, str], Revocation] = MappingProxyType(found)

    def of_capability(self, capability: Capability) -> Revocation | None:
        """Returns the revocation that covers this handle, or None."""
        if not self._found and not self._erased:
            return None
        erased = self._erased.get(capability.tenant)
        if erased is not None:
            return erased
        serial = self._found.get((pb.REVOCATION_KIND_HANDLE, capability.serial.hex()))
        return serial or self._of(
            capability.workload, capability.grant, capability.tenant, capability.key
        )

    def of_grant(self, grant: Grant, workload: str) -> Revocation | None:
        """Returns the revocation that forbids a new handle for this grant and workload, or None."""
        tenant = grant.tenant
        return self._erased.get(tenant) or self._of(workload, grant.name, tenant, grant.key)

    def of_workload(self, workload: str) -> Revocation | None:
        """Returns the revocation that covers all handles of this workload, whatever its grants, or
        None.
        """
        everything = self._found.get((pb.REVOCATION_KIND_EVERYTHING, EVERYTHING))
        return everything or self._found.get((pb.REVOCATION_KIND_WORKLOAD, workload))

    def of_identity(self, spiffe_id: str, *, administers: bool) -> Revocation | None:
        """Returns the revocation under which this identity gets no further certificate, or None.

        An identity with a role is covered only by name: revoking everything stops signing, but not
        the people who handle the incident.
        """
        named = self._found.get((pb.REVOCATION_KIND_WORKLOAD, spiffe_id))
        return named if named is not None or administers else self.of_workload(spiffe_id)

    def of_version(self, tenant: str, key: str, version: int) -> Revocation | None:
        """Returns the revocation of this one version of a key, or None. Other versions sign on."""
        if not self._found:
            return None
        return self._found.get((pb.REVOCATION_KIND_KEY_VERSION, f"{tenant}/{key}/{version}"))

    def of_key_version(self, tenant: str, key: str, version: int) -> Revocation | None:
        """Returns the widest revocation under which no grant lets sign with this version, or
        None.
        """
        find = self._found.get
        return (
            self._erased.get(tenant)
            or find((pb.REVOCATION_KIND_EVERYTHING, EVERYTHING))
            or find((pb.REVOCATION_KIND_TENANT, tenant))
            or find((pb.REVOCATION_KIND_KEY, f"{tenant}/{key}"))
            or self.of_version(tenant, key, version)
        )

    def of_erased(self, tenant: str) -> Revocation | None:
        """Returns the end of all use of an erased tenant, or None: it is never lifted."""
        return self._erased.get(tenant)

    @property
    def erased(self) -> frozenset[str]:
        """Tenants that were erased."""
        return frozenset(self._erased)

    def has(self, kind: int, target: str) -> bool:
        """Whether exactly this was revoked."""
        return (kind, target) in self._found

    def serials(self) -> list[bytes]:
        """Returns the serials of handles that were revoked singly, newest first, for messages that
        hold only some of them.
        """
        handles = [
            each for (kind, _), each in self._found.items() if kind == pb.REVOCATION_KIND_HANDLE
        ]
        return [
            bytes.fromhex(each.target)
            for each in sorted(handles, key=lambda each: each.epoch, reverse=True)
        ]

    def refuse(self, capability: Capability) -> None:
        """Raise FailureError HANDLE_REVOKED if a revocation covers this handle."""
        found = self.of_capability(capability)
        if found is not None:
            raise revoked_failure(found)

    def _of(self, workload: str, grant: str, tenant: str, key: str) -> Revocation | None:
        find = self._found.get
        return (
            find((pb.REVOCATION_KIND_EVERYTHING, EVERYTHING))
            or find((pb.REVOCATION_KIND_TENANT, tenant))
            or find((pb.REVOCATION_KIND_KEY, f"{tenant}/{key}"))
            or find((pb.REVOCATION_KIND_WORKLOAD, workload))
            or find((pb.REVOCATION_KIND_GRANT, grant))
        )


def revoked_failure(revocation: Revocation, *, retry_after_ms: int = 0) -> FailureError:
    """Returns the refusal that this revocation causes."""
    reason = (
        failures_pb2.REASON_TENANT_ERASED
        if revocation.erases
        else failures_pb2.REASON_HANDLE_REVOKED
    )
    return FailureError(reason, words_of(revocation), retry_after_ms=retry_after_ms)


def words_of(revocation: Revocation) -> str:
    """Returns what was revoked, as a sentence for a person."""
    if revocation.erases:
        return f"The tenant {revocation.target} was erased at epoch {revocation.epoch}."
    what = _WORDS[pb.RevocationKind.ValueType(revocation.kind)]
    return f"{what} was revoked at epoch {revocation.epoch}."
