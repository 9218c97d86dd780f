"""An adapter's inside, put together in this process: the real pipeline, policy, handles and SQLite
on a token in memory.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from capsign_adapter.decide.biscuits import Mint, Verifier
from capsign_adapter.decide.budget import Budget
from capsign_adapter.decide.capability import capability_for
from capsign_adapter.decide.evidence_quota import EvidenceQuota
from capsign_adapter.decide.handle_cache import HandleCache
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.keys.commitment import CommitmentKeys
from capsign_adapter.keys.keyring import CacheSettings, Keyring
from capsign_adapter.keys.mint_key import mint_seed
from capsign_adapter.model.policies import PolicyDraft
from capsign_adapter.provisioning import provision_all
from capsign_adapter.sign.admit import Admission
from capsign_adapter.sign.change_notifier import ChangeNotifier
from capsign_adapter.sign.charge import Charges
from capsign_adapter.sign.checkpoints import Checkpoints
from capsign_adapter.sign.clock import CLOCK, monotonic_ms, now_ms
from capsign_adapter.sign.commit import Commits
from capsign_adapter.sign.decision_cache import DecisionCache
from capsign_adapter.sign.fair_scheduler import FairQueue, FairScheduler, Turn
from capsign_adapter.sign.key_readers import KeyReaders
from capsign_adapter.sign.key_sets import KeySets
from capsign_adapter.sign.pipeline import Pipeline
from capsign_adapter.sign.public_keys import PublicKeys
from capsign_adapter.sign.resolve import Resolutions
from capsign_adapter.sign.revocation_barrier import RevocationBarrier
from capsign_adapter.sign.scheduled_token import BatchScheduler, ScheduledToken
from capsign_adapter.sign.snapshot import Snapshots
from capsign_adapter.store.open import open_store
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2
from support.fake_token import FakeToken
from support.interposed import Interposed

APP = "spiffe://capsign.test/ns/demo/sa/app"
OTHER = "spiffe://capsign.test/ns/demo/sa/other"
STRANGER = "spiffe://capsign.test/ns/demo/sa/stranger"
OPERATOR = "spiffe://capsign.test/operator/dev"
AUDITOR = "spiffe://capsign.test/auditor/dev"
RESPONDER = "spiffe://capsign.test/responder/dev"
APPROVER = "spiffe://capsign.test/approver/dev"

POLICY = f"""
version: 1
trust_domain: capsign.test
tenants: [{{name: demo}}]
keys:
  - {{tenant: demo, name: orders, kind: derived, algorithms: [Ed25519, ES256, HS256, ML-DSA-65]}}
  - {{tenant: demo, name: release, kind: direct, algorithms: [ES384]}}
grants:
  - name: orders-jwt
    tenant: demo
    key: orders
    workloads: ["{APP}"]
    purpose: jwt
    algorithms: [Ed25519, ES256, HS256, ML-DSA-65]
    protocols: [{{protocol: jwt, roles: [issuer, audience], versions: ["1"]}}]
    transcript: allowed
    min_custody: adapter-memory
    ttl: 15m
  - name: release
    tenant: demo
    key: release
    workloads: ["{APP}"]
    purpose: artifact
    algorithms: [ES384]
    protocols: [{{protocol: release, roles: [signer], versions: ["1"]}}]
    transcript: forbidden
    min_custody: hsm-direct
    ttl: 15m
  - name: thrice
    tenant: demo
    key: orders
    workloads: ["{APP}"]
    purpose: thrice
    algorithms: [Ed25519]
    protocols: [{{protocol: jwt, roles: [issuer], versions: ["1"]}}]
    transcript: forbidden
    min_custody: adapter-memory
    ttl: 15m
    max_uses: 3
  - name: slow
    tenant: demo
    key: orders
    workloads: ["{APP}"]
    purpose: slow
    algorithms: [Ed25519]
    protocols: [{{protocol: jwt, roles: [issuer], versions: ["1"]}}]
    transcript: forbidden
    min_custody: adapter-memory
    ttl: 15m
    rate: {{per_second: 1, burst: 2}}
  - name: others
    tenant: demo
    key: orders
    workloads: ["{OTHER}"]
    purpose: jwt
    algorithms: [Ed25519]
    protocols: [{{protocol: jwt, roles: [issuer], versions: ["1"]}}]
    transcript: forbidden
    min_custody: adapter-memory
    ttl: 15m
roles:
  - {{role: operator, identities: ["{OPERATOR}"]}}
  - {{role: auditor, identities: ["{AUDITOR}"]}}
  - {{role: responder, identities: ["{RESPONDER}"]}}
  - {{role: approver, identities: ["{APPROVER}"]}}
limits: {{intent_retention: 24h, clock_skew: 30s, message_max: 65536}}
algorithms: {{floor_bits: 128}}
tls: {{min: "1.3"}}
"""

RULES = parse_policy(POLICY.encode())


def rules() -> Policy:
    """The policy in force, for who needs no store for it."""
    return RULES


def peer(spiffe_id: str = APP, key: bytes = b"") -> Peer:
    """A peer whose certificate is good for an hour; each SPIFFE ID has a key of its own."""
    return Peer(spiffe_id, (key or spiffe_id[-3:].encode()).ljust(32, b"k"), now_ms() + 3_600_000)


class AdapterRig:
    """Attributes are the parts; `sign` is a short way through them. What a test may stand in for is
    behind `Interposed`.
    """

    def __init__(
        self,
        directory: Path,
        document: str = POLICY,
        url: str = "",
        password_file: Path | None = None,
    ) -> None:
        """On SQLite in `directory`, or on the empty PostgreSQL database at `url`."""
        directory.mkdir(mode=0o700, exist_ok=True)
        self.url = url or f"sqlite://{directory}/store.db"
        self.password_file = password_file
        self.skipped_ms = 0
        """Added to the clock by which rates run, which is not the one on the wall."""
        self.clock = CLOCK
        """By which batches are decided, and how refusals are delayed."""
        self.turn = Turn
        self.policy = RULES if document == POLICY else parse_policy(document.encode())
        self.token: Any = Interposed(FakeToken())
        self.store: Any = Interposed(open_store(self.url, password_file=password_file, create=True))
        provision_all(self.policy, self.token, self.store, now_ms())
        self.wire()

    def wire(self) -> None:
        """Make the parts, and put them together."""
        self.mint: Any = Interposed(Mint(bytes(mint_seed(self.token))))
        self.verifier: Any = Interposed(Verifier(self.mint.public_key))
        self.handles = HandleCache(self.verifier)
        self.scheduler = FairScheduler(2)
        self.scheduled_token: Any = Interposed(ScheduledToken(self.token, FairQueue(1)))
        self.keyring: Any = Interposed(
            Keyring(
                self.scheduled_token,
                CacheSettings(),
                monotonic_ms,
                lambda: self.scheduled_token.yielded(),
            )
        )
        self.commitments = CommitmentKeys(self.scheduled_token, monotonic_ms)
        self.snapshots = Snapshots(self.store, lambda _: self.keyring.clear())
        self.key_readers = KeyReaders(self.store, self.snapshots.policy, now_ms)
        self.changes = ChangeNotifier()
        self.barrier = RevocationBarrier(3000, 1000, lambda: self.store.control().revocation_epoch)
        self.rates = Buckets(lambda: monotonic_ms() + self.skipped_ms)
        self.budget = Budget(self.snapshots.policy, Buckets(lambda: self.skipped_ms), 200_000)
        self.quota = EvidenceQuota(Buckets(lambda: self.skipped_ms), 1024)
        self.admission: Any = Interposed(
            Admission(self.handles, self.keyring, self.commitments, self.budget)
        )
        self.decisions = DecisionCache()
        self.join()

    def join(self) -> None:
        """Put the signing path together from its parts; call again after changing one."""
        self.charges = Charges(self.rates, self.quota, 100)
        self.checkpoints = Checkpoints(self.store, self.token, "capsign.test/log")
        self.pipeline = Pipeline(
            self.admission,
            self.decisions,
            self.charges,
            self.snapshots,
            Commits(self.store, self.charges, self.checkpoints.demand_unbroken),
            BatchScheduler(self.snapshots.policy, self.scheduler, self.scheduled_token, self.turn),
            self.clock,
        )
        self.resolutions = Resolutions(self.admission, self.charges, self.store)
        self.keys = PublicKeys(
            self.admission,
            self.keyring,
            self.snapshots,
            KeySets(self.keyring, self.snapshots),
            self.key_readers,
        )

    def apply(self, document: str) -> None:
        """Put another policy in force, as the next version in the store."""
        self.policy = parse_policy(document.encode())
        base = self.store.policy_in_force().version
        draft = PolicyDraft(self.policy.digest, self.policy.document, base, OPERATOR)
        row = self.store.propose_policy(draft, lambda _: b"proposed", now_ms())
        self.store.apply_policy(row.version, OPERATOR, lambda *_: b"applied", now_ms())
        self.snapshots.refresh()

    def beside(self) -> AdapterRig:
        """Another replica's parts: a store object of its own on the same database, and a token with
        the same keys.
        """
        other = AdapterRig.__new__(AdapterRig)
        other.url, other.policy, other.skipped_ms = self.url, self.policy, 0
        other.password_file = self.password_file
        other.clock, other.turn = self.clock, self.turn
        other.token = Interposed(self.token.beside())
        other.store = Interposed(open_store(self.url, password_file=self.password_file))
        other.wire()
        return other

    def handle(self, grant: str = "orders-jwt", who: Peer | None = None, age_ms: int = 0) -> bytes:
        """A token for that grant in the hands of that peer, minted so long ago."""
        holder = who or peer()
        found = self.policy.grant(grant)
        return self.mint.mint(
            capability_for(
                found, holder.spiffe_id, holder.key_hash, os.urandom(16), now_ms() - age_ms
            )
        )

    def sign(
        self, *inputs: bytes, who: Peer | None = None, handle: bytes | None = None, **group
    ) -> list[signing_pb2.SignedItem]:
        """Sign inputs as one group; results in order. Extra arguments are fields of the group or
        `intents`.
        """
        intents = group.pop("intents", None) or [new_intent_id() for _ in inputs]
        group.setdefault("algorithm", algorithms_pb2.ALGORITHM_ED25519)
        group.setdefault("context", signing_pb2.ContextSuffix(role="issuer"))
        items = [
            pb.SignItem(intent_id=intent, input=data)
            for intent, data in zip(intents, inputs, strict=True)
        ]
        request = pb.SignRequest(
            batch_id=1,
            handles=[handle or self.handle(who=who)],
            groups=[pb.SignGroup(items=items, **group)],
        )
        return list(
            self.pipeline.run(who or peer(), request, self.barrier.ticket(lambda: None))
            .groups[0]
            .items
        )

    def entries(self) -> list[bytes]:
        """Every entry of the log."""
        return self.store.entries(0, self.store.control().tree_size)

    def close(self) -> None:
        self.store.close()


def intent_at(offset_ms: int) -> bytes:
    """An intent id whose time is that far from now."""
    return new_intent_id(time.time_ns() // 1_000_000 + offset_ms)
