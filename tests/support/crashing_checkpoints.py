"""Makes checkpoints of a growing log, and kills itself (SIGKILL) the n-th time it comes to a step
of publication.

Usage: crashing_checkpoints.py DIRECTORY STEP:N. Prints size and root of each checkpoint once it
may be shown. The token is one in memory whose keys are the same in each run.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from capsign_adapter.keys import labels
from capsign_adapter.sign.checkpoints import Checkpoints
from capsign_adapter.sign.published_file import PublishedFile
from capsign_adapter.store.open import checkpoint_beside, open_store
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ORIGIN = "capsign.test/log"
STEPS = ("signed", "in the store", "written", "in the file", "shown")
ROUNDS = 6


class Crash:
    """Counts visits to one step."""

    def __init__(self, told: str) -> None:
        self._step, count = told.rsplit(":", 1)
        self._left = int(count)

    def at(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def after(owner: Any, name: str, crash: Crash, step: str) -> None:
    """Come to the step once that method of the object has returned."""
    real = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        result = real(*arguments, **named)
        crash.at(step)
        return result

    setattr(owner, name, call)


class FixedToken:
    """The log's keys."""

    def __init__(self) -> None:
        self._pair = Ed25519PrivateKey.from_private_bytes(bytes(32))

    def public_key(self, label: str) -> bytes:
        assert label == labels.LOG
        return self._pair.public_key().public_bytes_raw()

    def sign(self, label: str, algorithm: int, data: bytes) -> bytes:
        return self._pair.sign(data)

    def hmac(self, label: str, data: bytes) -> bytes:
        assert label == labels.LOG_ROOT
        return bytes(32)


def main() -> None:
    url = f"sqlite://{Path(sys.argv[1]) / 'store.db'}"
    crash = Crash(sys.argv[2])
    store: Any = open_store(url)
    token: Any = FixedToken()
    made = Checkpoints(store, token, ORIGIN, remembered=checkpoint_beside(url))
    after(made.keys, "sign", crash, "signed")
    after(store, "save_checkpoint", crash, "in the store")
    after(Path, "replace", crash, "written")
    after(PublishedFile, "remember", crash, "in the file")
    for _ in range(ROUNDS):
        store.append([os.urandom(8) for _ in range(3)], 1)
        checkpoint = made.current(1_800_000_000_000)
        crash.at("shown")
        print(checkpoint.tree_size, checkpoint.root.hex(), flush=True)
    store.close()


if __name__ == "__main__":
    main()
