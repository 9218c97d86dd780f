"""A log that is forked towards one agent, with real processes: a replica is set upon a copy of the
store that went another way. The agent leaves it, goes on with the honest one, and what it keeps
proves the fork.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import capsign
import psutil
import pytest
from capsign_wire.adapter.v1 import evidence_pb2
from support.dev import Dev
from support.forked_replica import forked, serve_the_fork, store_of


@pytest.fixture
def dev(short_dir):
    deployment = Dev(short_dir / "d", workers=2)
    yield deployment
    deployment.close()


def until(done: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def sign(dev: Dev, count: int) -> list[capsign.Signature]:
    with capsign.Signer(dev.socket(), timeout=30) as signer:
        made = signer.sign_many(
            [b"%d" % n for n in range(count)], purpose="jwt", protocol="jwt", algorithm="ES256"
        )
    signed = [one for one in made if isinstance(one, capsign.Signature)]
    assert signed == made
    return signed


def seen(witness: Path) -> int:
    """Leaves of the checkpoint that the agent remembers."""
    try:
        return int((witness / "checkpoint").read_text().split("\n")[1])
    except FileNotFoundError:
        return 0


def test_a_fork_towards_one_agent_is_seen_left_and_proven(dev, short_dir):
    store = store_of(dev)
    settings = tomllib.loads(Path(dev.about["agent"]["config"]).read_text())
    witness = Path(settings["journal"]["dir"]) / "witness"
    dev.end(dev.agent)
    agent = dev.start_agent(CAPSIGN_AGENT_LOG_LOOK_EVERY_S="1")
    until(lambda: seen(witness))

    dev.end(dev.adapter(1))
    forked(store, short_dir / "fork.sqlite")
    honest = sign(dev, 20)
    until(lambda: seen(witness) > max(one.leaf_index for one in honest))
    serve_the_fork(dev, short_dir / "fork.sqlite")

    until(lambda: list(witness.glob("split-view-*.json")))
    (kept,) = witness.glob("split-view-*.json")
    told = json.loads(kept.read_text())
    assert told["adapter"] == dev.about["adapters"][1]["address"]
    assert told["fault"] == "inconsistent"
    after = sign(dev, 200)
    psutil.Process(agent.pid).terminate()
    agent.wait(30)

    intents = dev.signed_intents()
    assert all(one.intent_id in intents for one in honest + after)
    (record,) = split_views(dev)
    assert record.log_fault == evidence_pb2.LOG_FAULT_INCONSISTENT
    assert record.shown_root != record.seen_root
    code, found = judged(kept, store)
    assert (code, found["finding"]) == (1, "not_in_log")


def split_views(dev: Dev) -> list[evidence_pb2.AuditRecord]:
    """What the agent reported of it, in the honest store."""
    store = dev.opened_store()
    try:
        batches = [batch for _, _, batch in store.audit_batches(limit=100_000)]
    finally:
        store.close()
    records = [
        one for batch in batches for one in evidence_pb2.AuditBatch.FromString(batch).records
    ]
    return [one for one in records if one.kind == evidence_pb2.AUDIT_KIND_SPLIT_VIEW]


def judged(kept: Path, store: Path) -> tuple[int, dict[str, str]]:
    """What `capsign audit split-view` finds with the log at hand."""
    command = [sys.executable, "-m", "capsign_cli", "audit", "split-view", str(kept), str(store)]
    done = subprocess.run([*command, "-o", "json"], capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)
