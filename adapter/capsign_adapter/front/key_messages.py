"""Key versions as people are shown them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from capsign_wire.adapter.v1 import admin_pb2 as pb
from capsign_wire.types.v1 import algorithms_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from capsign_adapter.decide.drift import lifetime_of
from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.revoked import RevocationIndex
from capsign_adapter.keys.keyring import Keyring
from capsign_adapter.model.drift import KeyUse
from capsign_adapter.model.key_versions import KeyVersionRow


@dataclass(frozen=True, slots=True)
class Figures:
    """When versions signed last, by tenant, key and version, for how long they may, and what is
    revoked.
    """

    uses: Mapping[tuple[str, str, int], KeyUse]
    policy: Policy
    revoked: RevocationIndex

    def last_used_ms(self, row: KeyVersionRow) -> int:
        """Milliseconds since 1970; 0: never seen to sign."""
        use = self.uses.get((row.tenant, row.key, row.version))
        return use.last_ms if use is not None else 0

    def ends_ms(self, row: KeyVersionRow) -> int:
        """The end of its cryptoperiod; 0: it was never activated."""
        life = lifetime_of(self.policy.key(row.tenant, row.key))
        return row.activated_ms + life.cryptoperiod_ms if row.activated_ms else 0

    def revoked_epoch(self, row: KeyVersionRow) -> int:
        """The epoch of the revocation under which it does not sign; 0: none."""
        found = self.revoked.of_key_version(row.tenant, row.key, row.version)
        return found.epoch if found is not None else 0


def figures_of(uses: Iterable[KeyUse], policy: Policy, revoked: RevocationIndex) -> Figures:
    """The figures of what the store has, by the policy and the revocations in force."""
    by_version = {(use.tenant, use.key, use.version): use for use in uses}
    return Figures(by_version, policy, revoked)


def version_of(
    row: KeyVersionRow, keyring: Keyring, figures: Figures | None = None
) -> pb.KeyVersion:
    """One version. Raises FailureError TOKEN_UNAVAILABLE."""
    numbers = [algorithms_pb2.Algorithm.ValueType(number) for number in row.algorithms]
    return pb.KeyVersion(
        version=row.version,
        state=row.state,
        created_at=time_of(row.created_ms),
        custody=keyring.custody(row, numbers[0]),
        algorithms=numbers,
        check_value=row.check_value,
        published_at=time_of(row.published_ms),
        activated_at=time_of(row.activated_ms),
        since=time_of(row.since_ms),
        activation_epoch=row.activation_epoch,
        gone_at=time_of(row.gone_ms),
        last_used_at=time_of(figures.last_used_ms(row)) if figures is not None else None,
        cryptoperiod_ends_at=time_of(figures.ends_ms(row)) if figures is not None else None,
        revoked_epoch=figures.revoked_epoch(row) if figures is not None else 0,
    )


def time_of(ms: int) -> Timestamp | None:
    """Milliseconds since 1970 as a message; 0 is none."""
    if not ms:
        return None
    made = Timestamp()
    made.FromMilliseconds(ms)
    return made
