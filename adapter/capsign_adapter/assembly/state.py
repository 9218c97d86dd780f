"""What a replica keeps: caches that are emptied as one when the revocation epoch moves, and its
membership among the replicas.
"""

from __future__ import annotations

from typing import Any

from capsign_wire import logs

from capsign_adapter.algorithms.expand import wipe
from capsign_adapter.config import Config
from capsign_adapter.decide.biscuits import Mint, Verifier
from capsign_adapter.decide.handle_cache import HandleCache
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.keys.commitment import CommitmentKeys
from capsign_adapter.keys.keyring import CacheSettings, Keyring
from capsign_adapter.keys.mint_key import mint_seed
from capsign_adapter.sign.change_notifier import ChangeNotifier
from capsign_adapter.sign.checkpoints import Checkpoints
from capsign_adapter.sign.clock import monotonic_ms, now_ms
from capsign_adapter.sign.decision_cache import DecisionCache
from capsign_adapter.sign.epoch_follower import EpochFollower
from capsign_adapter.sign.fair_scheduler import FairQueue
from capsign_adapter.sign.key_readers import KeyReaders
from capsign_adapter.sign.key_sets import KeySets
from capsign_adapter.sign.policy_in_force import InForce
from capsign_adapter.sign.refused_moves import RefusedMoves
from capsign_adapter.sign.replica_drains import Membership
from capsign_adapter.sign.revocation_barrier import RevocationBarrier
from capsign_adapter.sign.scheduled_token import ScheduledToken
from capsign_adapter.sign.snapshot import Snapshot, Snapshots
from capsign_adapter.sign.yielding_store import YieldingStore
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.store.open import checkpoint_beside
from capsign_adapter.token.interface import Token


class State:
    """Of one replica, over its store and its token."""

    def __init__(
        self, config: Config, token: Token, store: Store, *, known: InForce | None = None
    ) -> None:
        """Reads the mint's key from the token, and the policy in force from the store. `known`:
        see `Snapshots`. Raises what they raise.
        """
        self.token = token
        self.store = store
        self.scheduled_token: Any = ScheduledToken(token, FairQueue(1))
        """The token, for whoever works on a batch: one call at a time, by turns."""
        self.yielding_store: Any = YieldingStore(store, self.scheduled_token.yielded)
        """The store, for whoever has a turn and must not keep it while he waits."""

        self.keyring = Keyring(
            self.scheduled_token,
            CacheSettings(config.subkeys.most, config.subkeys.seconds * 1000),
            monotonic_ms,
            self.scheduled_token.yielded,
        )
        self.commitments = CommitmentKeys(self.scheduled_token, monotonic_ms)
        self._erased: frozenset[str] = frozenset()
        self.mint = _mint(token)
        self.handles = HandleCache(Verifier(self.mint.public_key))
        self.decisions = DecisionCache()

        control = config.control
        self.membership = Membership(store, control.lease_ms, control.lease_margin_ms)
        self.barrier = RevocationBarrier(
            control.lease_ms, control.lease_margin_ms, lambda: store.control().revocation_epoch
        )
        self.snapshots = Snapshots(
            self.yielding_store, self._moved, self.scheduled_token.yielded, known=known
        )
        self.key_sets = KeySets(self.keyring, self.snapshots)
        self.key_readers = KeyReaders(store, self.snapshots.policy, now_ms)
        self.changes = ChangeNotifier()
        self.epochs = EpochFollower(self.snapshots, self.barrier, self.membership, self.changes)
        self.refused_moves = RefusedMoves(
            store, lambda: self.snapshots.policy().digest, Buckets(monotonic_ms), now_ms
        )
        self.checkpoints = Checkpoints(
            store,
            token,
            config.log.origin,
            self.scheduled_token.yielded,
            remembered=config.log.published_file or checkpoint_beside(config.store.url),
        )

    def _moved(self, snapshot: Snapshot) -> None:
        self.membership.works_under(snapshot.epoch)
        self.decisions.clear()
        self.keyring.clear()
        self.handles.clear()
        if snapshot.revoked.erased != self._erased:
            self._erased = snapshot.revoked.erased
            self.commitments.clear()
        logs.event("epoch.moved", epoch=snapshot.epoch, policy=snapshot.policy_version)


def _mint(token: Token) -> Mint:
    seed = mint_seed(token)
    try:
        return Mint(bytes(seed))
    finally:
        wipe(seed)
