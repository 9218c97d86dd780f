"""The JWK Sets of this replica: each is made once for an epoch, and then answered from memory."""

from __future__ import annotations

from threading import Lock

from capsign_wire.types.v1 import algorithms_pb2, signing_pb2

from capsign_adapter.decide.jwks import KeySet, Place, PublicKey, key_set, place_of
from capsign_adapter.keys.keyring import Keyring
from capsign_adapter.sign.snapshot import Snapshot, Snapshots

MOST_BYTES = 8 * 1024 * 1024
"""Bytes of sets that are kept. Above that all are dropped, and made anew when they are asked for.
"""


class KeySets:
    """Safe for any thread. Asks neither the store nor a peer's budget: whoever calls `of` bounds
    how often, since it may have the token derive keys.
    """

    def __init__(self, keyring: Keyring, snapshots: Snapshots) -> None:
        self._keyring = keyring
        self._snapshots = snapshots
        self._lock = Lock()
        self._epoch = 0
        self._bytes = 0
        self._made: dict[Place, KeySet] = {}

    def known(self, tenant: str, grant: str, suffix: signing_pb2.ContextSuffix) -> KeySet | None:
        """The set of this place if it was made under the present epoch. Raises as `place_of`."""
        snapshot = self._snapshots.current
        place = place_of(snapshot.policy, tenant, grant, suffix)
        with self._lock:
            return self._made.get(place) if self._epoch == snapshot.epoch else None

    def of(self, tenant: str, grant: str, suffix: signing_pb2.ContextSuffix) -> KeySet:
        """The set of this place. Raises as `place_of`, and FailureError TOKEN_UNAVAILABLE."""
        snapshot = self._snapshots.current
        place = place_of(snapshot.policy, tenant, grant, suffix)
        keep_s = snapshot.kept_s(tenant, place.grant.key)
        made = key_set(self._keys(snapshot, place), snapshot.epoch, keep_s)
        with self._lock:
            if snapshot.epoch > self._epoch or self._bytes + len(made.body) > MOST_BYTES:
                self._made, self._bytes = {}, 0
                self._epoch = max(self._epoch, snapshot.epoch)
            if snapshot.epoch == self._epoch and place not in self._made:
                self._made[place] = made
                self._bytes += len(made.body)
        return made

    def _keys(self, snapshot: Snapshot, place: Place) -> list[PublicKey]:
        grant, found = place.grant, []
        for number in sorted(grant.algorithms):
            algorithm = algorithms_pb2.Algorithm.ValueType(number)
            for row in snapshot.verifiable(grant.tenant, grant.key, algorithm):
                digest = place.context(row, algorithm).digest()
                signer = self._keyring.signer(row, grant.purpose, algorithm, digest)
                if signer.spki:
                    found.append(PublicKey(row, algorithm, signer.kid, signer.spki))
        return found
