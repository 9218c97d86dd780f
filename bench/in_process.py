"""The adapter's signing path in this process, on SoftHSM and SQLite, for the ceiling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capsign_adapter.decide.biscuits import Mint, Verifier
from capsign_adapter.decide.budget import Budget
from capsign_adapter.decide.capability import capability_for
from capsign_adapter.decide.evidence_quota import EvidenceQuota
from capsign_adapter.decide.handle_cache import HandleCache
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.keys.commitment import CommitmentKeys
from capsign_adapter.keys.keyring import CacheSettings, Keyring
from capsign_adapter.keys.mint_key import mint_seed
from capsign_adapter.provisioning import provision_all
from capsign_adapter.sign.admit import Admission
from capsign_adapter.sign.charge import Charges
from capsign_adapter.sign.clock import monotonic_ms, now_ms
from capsign_adapter.sign.commit import Commits
from capsign_adapter.sign.decision_cache import DecisionCache
from capsign_adapter.sign.fair_scheduler import FairQueue, FairScheduler
from capsign_adapter.sign.pipeline import Pipeline
from capsign_adapter.sign.revocation_barrier import RevocationBarrier
from capsign_adapter.sign.scheduled_token import BatchScheduler, ScheduledToken
from capsign_adapter.sign.snapshot import Snapshots
from capsign_adapter.store.open import open_store
from capsign_adapter.token.open import TokenSettings, open_token
from capsign_wire.adapter.v1 import signing_pb2 as pb

ROOT = Path(__file__).resolve().parent.parent
WORKLOAD = "spiffe://capsign.test/ns/bench/sa/app"
POLICY = f"""
version: 1
trust_domain: capsign.test
tenants: [{{name: bench}}]
keys: [{{tenant: bench, name: bench, kind: derived, algorithms: [Ed25519]}}]
grants:
  - name: bench
    tenant: bench
    key: bench
    workloads: ["{WORKLOAD}"]
    purpose: bench
    algorithms: [Ed25519]
    protocols: [{{protocol: bench, roles: [signer], versions: ["1"]}}]
    transcript: forbidden
    min_custody: adapter-memory
    ttl: 15m
limits: {{intent_retention: 24h, clock_skew: 30s, message_max: 65536}}
algorithms: {{floor_bits: 128}}
tls: {{min: "1.3"}}
"""


@contextmanager
def pipeline_in(directory: Path) -> Iterator[tuple[Callable[[bytes], bytes], bytes]]:
    """A function from a serialised batch to a serialised answer, and a handle for it."""
    made = subprocess.run(
        [
            sys.executable,
            str(ROOT / "softhsm" / "init.py"),
            "--dir",
            str(directory / "token"),
            "--label",
            "bench",
            "-o",
            "json",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    paths = json.loads(made.stdout)
    os.environ["SOFTHSM2_CONF"] = paths["conf"]
    policy = parse_policy(POLICY.encode())
    (directory / "store").mkdir(mode=0o700)
    store = open_store(f"sqlite://{directory}/store/bench.db", create=True)
    token = open_token(
        TokenSettings(Path(paths["module"]), "bench", Path(paths["pin_file"]), Path(paths["conf"]))
    )
    try:
        provision_all(policy, token, store, now_ms())
        mint = Mint(bytes(mint_seed(token)))
        scheduled_token: Any = ScheduledToken(token, FairQueue(1))
        keyring, commitments = (
            Keyring(scheduled_token, CacheSettings(), monotonic_ms, scheduled_token.yielded),
            CommitmentKeys(scheduled_token, monotonic_ms),
        )
        decisions, snapshots = DecisionCache(), Snapshots(store)
        budget = Budget(snapshots.policy, Buckets(monotonic_ms), 200_000)
        handles = HandleCache(Verifier(mint.public_key))
        admission = Admission(handles, keyring, commitments, budget)
        charges = Charges(Buckets(monotonic_ms), EvidenceQuota(Buckets(monotonic_ms), 1024), 100)
        turns = BatchScheduler(snapshots.policy, FairScheduler(2), scheduled_token)
        commits = Commits(store, charges, lambda: None)
        pipeline = Pipeline(admission, decisions, charges, snapshots, commits, turns)
        barrier = RevocationBarrier(3000, 1000, lambda: store.control().revocation_epoch)
        ticket = barrier.ticket(lambda: None)
        peer = Peer(WORKLOAD, b"k" * 32, now_ms() + 3_600_000)
        capability = capability_for(policy.grants[0], WORKLOAD, peer.key_hash, b"s" * 16, now_ms())

        def run(wire: bytes) -> bytes:
            answer = pipeline.run(peer, pb.SignRequest.FromString(wire), ticket)
            assert ticket.authorize_release()
            sent = answer.SerializeToString()
            ticket.leave()
            return sent

        yield run, mint.mint(capability)
    finally:
        store.close()
        token.close()
