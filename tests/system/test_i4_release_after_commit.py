"""I4: no signature leaves the adapter before its record is durable and sequenced.

The adapter is killed (SIGKILL, by itself, so that the step is exact) at each step of each of its
first five commits, twice, while applications sign through the agent. Every signature that an
application ever received must be in the log afterwards, once.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import capsign
import pytest
from support.crashing_adapter import STEPS
from support.dev import Dev

COMMITS = 5
KILLS = 2 * len(STEPS) * COMMITS


class Application(threading.Thread):
    """Signs until told to stop; remembers what it received, and of what it does not know."""

    def __init__(self, socket: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._signer = capsign.Signer(socket)
        self._stop_signing = stop
        self.received: list[bytes] = []
        self.unknown: list[bytes] = []

    def run(self) -> None:
        while not self._stop_signing.is_set():
            try:
                signature = self._signer.sign(
                    b"order 7", purpose="jwt", protocol="jwt", algorithm="Ed25519", timeout=3.0
                )
            except capsign.Unknown as error:
                self.unknown.append(error.intent_id)
            except capsign.Unavailable:
                continue
            else:
                self.received.append(signature.value + signature.intent_id)

    def settle(self) -> list[bytes]:
        """Resolve what is unknown: the bytes of what turns out to be done."""
        found = []
        for intent in self.unknown:
            resolution = self._signer.resolve(intent, purpose="jwt")
            if isinstance(resolution, capsign.Done):
                found.append(resolution.signature.value + resolution.signature.intent_id)
        self._signer.close()
        return found


def last_words(dev: Dev) -> str:
    """What its log ends with."""
    return Path(dev.about["adapters"][0]["log"]).read_text()[-800:]


@pytest.mark.timeout(900)
def test_i4_what_an_application_received_survives_kill_9_at_each_step_of_the_commit(dev):
    dev.end(dev.adapter())
    stop = threading.Event()
    applications = [Application(dev.socket(), stop) for _ in range(3)]
    for application in applications:
        application.start()
    for kill in range(KILLS):
        step = STEPS[kill % len(STEPS)]
        process = dev.start_adapter(
            module="support.crashing_adapter", CAPSIGN_TEST_CRASH=f"{step}:{1 + kill % COMMITS}"
        )
        assert process.wait(timeout=60) == -9, (
            f"the adapter ended by itself at kill {kill} ({step}): {last_words(dev)}"
        )
    survivor = dev.start_adapter()
    dev.wait_serving(dev.about["adapters"][0]["health"])
    stop.set()
    for application in applications:
        application.join(timeout=60)
    received = [value for application in applications for value in application.received]
    resolved = [value for application in applications for value in application.settle()]
    survivor.terminate()
    survivor.wait(timeout=30)

    assert len(received) > KILLS, "too few signatures to mean anything"
    log = dev.signed_intents()
    for value in received + resolved:
        signature, intent = value[:-16], value[-16:]
        assert log[intent] == [hashlib.sha256(signature).digest()]
    # And the other way: everything in the log was received, resolved, or is an intent that a caller
    # gave up as unavailable.
    assert all(len(hashes) == 1 for hashes in log.values())
