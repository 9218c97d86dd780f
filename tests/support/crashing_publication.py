"""Publishes checkpoints of a growing log that a witness cosigns, and kills itself (SIGKILL) the
n-th time it comes to a step.

Usage: python -m support.crashing_publication DIRECTORY STEP:N. Prints size and root of each
checkpoint once it may be shown. The witness is ours, without HTTP, with its state on disk; its
process would live on.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from capsign_adapter.sign.checkpoints import Checkpoints
from capsign_adapter.store.open import checkpoint_beside, open_store
from capsign_adapter.witnesses.asking import Asking, Outcome, WitnessedLog
from capsign_adapter.witnesses.client import Reply
from capsign_adapter.witnesses.publication import Publication
from capsign_evidence.tlog_policy import parse_policy
from capsign_evidence.witness_protocol import origin_hash
from capsign_witness import keys
from capsign_witness.state import State
from capsign_witness.witness import Witness
from support.crashing_checkpoints import ORIGIN, ROUNDS, Crash, FixedToken, after

STEPS = ("signed", "in the store", "cosigned", "published", "shown")
NOW = 1_800_000_000_000


class LocalWitness:
    """Has the methods of `WitnessClient`."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    def add_checkpoint(self, body: bytes) -> Reply:
        answer = self._witness.add_checkpoint(body)
        return Reply(answer.status, answer.content_type, answer.body)

    def checkpoint(self, origin: str) -> bytes | None:
        answer = self._witness.checkpoint(origin_hash(origin))
        return answer.body if answer.status == 200 else None


def main() -> None:
    folder, crash = Path(sys.argv[1]), Crash(sys.argv[2])
    url = f"sqlite://{folder / 'store.db'}"
    store: Any = open_store(url)
    token: Any = FixedToken()
    made = Checkpoints(store, token, ORIGIN, remembered=checkpoint_beside(url))
    own = keys.load(folder / "witness")
    known = {ORIGIN: made.keys.verifiers}
    client: Any = LocalWitness(Witness(own, State(folder / "witness"), known, lambda: NOW // 1000))
    policy = parse_policy(f"witness w {own.verifiers[0].text()}\nquorum w\n".encode())
    publication = Publication(store, policy, lambda: made.latest, lambda: 0, 1)
    made.show_by(publication)
    log = WitnessedLog(made.keys.verifiers, store, made.hold_against)
    came: list[Outcome] = []
    asking = Asking("w", client, own.verifiers[:1], log, publication, time.monotonic, came.append)
    asking.remembered()
    after(made.keys, "sign", crash, "signed")
    after(store, "save_checkpoint", crash, "in the store")
    after(client, "add_checkpoint", crash, "cosigned")
    after(store, "publish_checkpoint", crash, "published")
    for _ in range(ROUNDS):
        store.append([os.urandom(8) for _ in range(3)], 1)
        made.signed(NOW)
        asking.look()
        assert came.pop() is Outcome.COSIGNED
        checkpoint = made.current(NOW)
        crash.at("shown")
        print(checkpoint.tree_size, checkpoint.root.hex(), flush=True)
    store.close()


if __name__ == "__main__":
    main()
