"""I1: at no time does the agent's memory, disk, socket traffic or log hold a private key, subkey or
HKDF output.

The test asks the token itself for the keying material of the contexts that are used, and looks for
it, in every form in which a key is as good as itself, in a live agent after 10,000 signatures. So
that silence means something: the keys are shown to be the ones that signed, what the agent must
hold is found by the same search, a process that does hold a key is caught in every form, and so is
an agent that was given one.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import capsign
import pytest
from capsign_adapter.decide.context import Context
from capsign_adapter.keys.subkeys import from_okm
from capsign_wire.algorithms import BY_NAME
from capsign_wire.intents import new_intent_id
from support import key_forms, okm_oracle
from support.dev import stopped
from support.key_holder import HELD
from support.memory_scan import Needles, Scan, scan_files, scan_memory, scan_process
from support.tapped_socket import TappedSocket

SIGNATURES = 10_000
BATCH = 100
ALGORITHMS = ("Ed25519", "ES256", "HS256", "ML-DSA-65")
USES = [
    (algorithm, place)
    for algorithm in ALGORITHMS
    for place in (
        {"protocol": "jwt", "role": "issuer", "protocol_version": "1"},
        {"protocol": "order-v2", "role": "seller", "protocol_version": "2"},
    )
]
LEAST_SCANNED = 20_000_000
"""Bytes. An agent with gRPC in it is larger; a scan that saw less did not see the agent."""


@pytest.fixture(autouse=True)
def _may_read_the_agent():
    if os.geteuid() != 0:
        pytest.fail(
            "The agent's memory is closed to its own user, as it should be: run this test as root.",
            pytrace=False,
        )


class Wanted:
    """The keying material of the contexts in USES, and what to look for."""

    def __init__(self, token: dict) -> None:
        contexts = [
            Context("demo", "orders", 1, "jwt", algorithm, **place) for algorithm, place in USES
        ]
        told = okm_oracle.ask(token, contexts)
        self.okms: list[bytes] = told["okms"]
        self.digests = [context.digest() for context in contexts]
        named = {}
        for (algorithm, place), okm in zip(USES, self.okms, strict=True):
            for form, needle in key_forms.needles(algorithm, okm).items():
                named[f"{algorithm} for {place['protocol']}: {form}"] = needle
        named |= {
            f"mint: {form}": needle
            for form, needle in key_forms.needles("Ed25519", told["mint"]).items()
        }
        named |= {
            f"commitment: {form}": needle
            for form, needle in key_forms.needles("HS256", told["commitment"]).items()
        }
        self.needles = Needles(named)

    def check(
        self, index: int, signer: capsign.Signer, message: bytes, signature: capsign.Signature
    ) -> None:
        """These are the keys that sign: what was asked of the token verifies what came through the
        agent.
        """
        algorithm, place = USES[index]
        subkey = from_okm(
            BY_NAME[algorithm].number, bytearray(self.okms[index]), self.digests[index], 1
        )
        assert signature.context_digest == self.digests[index]
        assert signature.kid == subkey.kid
        if algorithm == "HS256":
            assert hmac.digest(self.okms[index], message, "sha256") == signature.value
        else:
            keys = signer.public_keys(purpose="jwt", algorithm=algorithm, **place)
            assert [key.spki for key in keys] == [subkey.spki]


def sign_all(
    signer: capsign.Signer,
    wanted: Wanted,
    total: int = SIGNATURES,
    half: threading.Event | None = None,
) -> capsign.Signature:
    """`total` signatures over all of USES, in turn; the last one. Sets `half` half-way."""
    for number in range(0, total, BATCH):
        if half is not None and number >= total // 2:
            half.set()
        index = number // BATCH % len(USES)
        algorithm, place = USES[index]
        messages = [b"order %d" % (number + one) for one in range(BATCH)]
        ids = [new_intent_id() for _ in messages]
        results: list = []
        # While the agent is stopped to be looked at, the time of a call may run out: the same
        # intents are sent again.
        while not results or any(
            isinstance(result, capsign.Unknown | capsign.Unavailable) for result in results
        ):
            results = signer.sign_many(
                messages, purpose="jwt", algorithm=algorithm, intent_ids=ids, **place
            )
        assert all(isinstance(result, capsign.Signature) for result in results)
        if number < BATCH * len(USES):
            wanted.check(index, signer, messages[0], results[0])
    return results[-1]


class CallInFlight(threading.Thread):
    """A call that the adapter has not answered: its transcript, intent id and message are in the
    agent.
    """

    def __init__(self, socket: str) -> None:
        super().__init__(daemon=True)
        self._socket = socket
        self.transcript = os.urandom(32)
        self.intent_id = new_intent_id()
        self.message = os.urandom(64)
        self.signature: capsign.Signature | None = None

    def run(self) -> None:
        wanted = {
            "purpose": "artifact",
            "algorithm": "Ed25519",
            "transcript": self.transcript,
            "intent_id": self.intent_id,
        }
        with capsign.Signer(self._socket) as signer:
            while self.signature is None:
                # A long look outlasts a call's time; the same intent is then sent again.
                with contextlib.suppress(capsign.Unknown, capsign.Unavailable):
                    self.signature = signer.sign(self.message, timeout=30.0, **wanted)

    def canaries(self) -> Needles:
        parts = {
            "transcript": self.transcript[:16],
            "intent id": self.intent_id,
            "message": self.message[20:36],
        }
        return Needles(parts)


def wait_until_journalled(journal: Path, intent_id: bytes) -> None:
    """The agent writes an intent down just before it sends it: then it certainly holds the call."""
    waiting = threading.Event()
    while not any(intent_id in path.read_bytes() for path in journal.rglob("*.seg")):
        waiting.wait(0.01)


def files_of(dev) -> list[Path]:
    """What the agent writes, and what it reads."""
    state = [path for path in Path(dev.about["state"], "journal").rglob("*") if path.is_file()]
    return [*state, Path(dev.about["agent"]["log"]), Path(dev.about["agent"]["config"])]


def said(scan: Scan) -> str:
    return "\n".join(f"{find.name}: {find.where}" for find in scan.finds[:20])


@pytest.mark.timeout(300)
def test_i1_a_live_agent_holds_no_key_after_ten_thousand_signatures(dev, short_dir):
    wanted = Wanted(dev.about["token"])
    pid, half = dev.agent.pid, threading.Event()
    with (
        TappedSocket(short_dir / "tap", dev.socket()) as tap,
        capsign.Signer(tap.path) as signer,
        ThreadPoolExecutor(1) as pool,
    ):
        load = pool.submit(sign_all, signer, wanted, half=half)
        load.add_done_callback(lambda _: half.set())
        half.wait(60)
        assert not load.done(), load.exception()
        with stopped(dev.agent):
            under_load = scan_process(pid, wanted.needles)
            assert not load.done()
        last = load.result(120)
        heard = tap.heard

    # A call is under way while its memory is looked at: the adapter is stopped before it can
    # answer.
    call = CallInFlight(dev.socket())
    with stopped(dev.adapter()):
        call.start()
        wait_until_journalled(Path(dev.about["state"], "journal"), call.intent_id)
        with stopped(dev.agent):
            scan = scan_process(pid, wanted.needles)
            seen = scan_memory(pid, call.canaries())
        files = scan_files(files_of(dev), wanted.needles)
    adapter = scan_memory(dev.adapter().pid, wanted.needles).names()
    call.join(timeout=60)

    for one in (under_load, scan):
        assert one.scanned > LEAST_SCANNED
        assert not one.finds, said(one)
    assert seen.names() == {"transcript", "intent id", "message"}
    # Where the keys are, one boundary away, the same search finds every one of them.
    assert {name.split(":")[0] for name in adapter} >= {
        f"{algorithm} for {place['protocol']}" for algorithm, place in USES
    }
    assert not files.finds, said(files)
    assert any(last.value in part for part in heard), "the tap did not hear the signatures"
    assert not [name for part in heard for name, _ in wanted.needles.within(part)]
    assert call.signature is not None, "the call that was looked at was a real one"


def test_i1_an_agent_that_keeps_a_key_is_caught(dev, short_dir):
    wanted = Wanted(dev.about["token"])
    leak = short_dir / "leak"
    leak.write_text("".join(base64.b64encode(okm).decode() + "\n" for okm in wanted.okms))
    dev.end(dev.agent)
    broken = dev.start_agent(module="support.leaking_agent", CAPSIGN_TEST_LEAK=str(leak))
    dev.wait_serving(dev.about["agent"]["health"])
    with capsign.Signer(dev.socket()) as signer:
        sign_all(signer, wanted, total=BATCH * len(USES))
    found = scan_memory(broken.pid, wanted.needles).names()
    expected = {
        f"{algorithm} for {place['protocol']}: okm base64, shift 0, {half}"
        for algorithm, place in USES
        for half in ("first", "last")
    }
    assert expected <= scan_files([leak], wanted.needles).names()
    assert expected <= found


def test_i1_an_adapter_that_gives_keys_away_is_caught_in_memory_and_on_the_socket(dev, short_dir):
    wanted = Wanted(dev.about["token"])
    dev.replace_adapter(module="support.leaking_adapter")
    with TappedSocket(short_dir / "tap", dev.socket()) as tap, capsign.Signer(tap.path) as signer:
        sign_all(signer, wanted, total=BATCH * len(USES))
        found = scan_memory(dev.agent.pid, wanted.needles).names()
        heard = {name for part in tap.heard for name, _ in wanted.needles.within(part)}
    expected = {
        f"{algorithm} for {place['protocol']}: okm raw, {half}"
        for algorithm, place in USES
        for half in ("first", "last")
    }
    assert expected <= heard
    # Memory that was freed may have been used again, so not every one has to be there still.
    assert expected & found


def test_i1_no_core_of_the_agent_is_ever_written(dev):
    limits = Path(f"/proc/{dev.agent.pid}/limits").read_text().splitlines()
    (core,) = [line.split() for line in limits if line.startswith("Max core file size")]
    assert core[4:6] == ["0", "0"]
    # prctl(PR_SET_DUMPABLE, 0) gives the process's files to root: its own user can neither read its
    # memory nor trace it.
    assert Path(f"/proc/{dev.agent.pid}/mem").stat().st_uid == 0


VISIBLE = {
    "Ed25519 subkey": {"okm raw, first", "okm raw, last"},
    "ES256 subkey": {"scalar reversed, first", "scalar reversed, last"},
    "HS256 subkey": {"okm raw, first", "okm raw, last"},
    "ML-DSA-65 subkey": {"okm raw, first", "okm raw, last"},
    "hmac object": {
        f"{side} midstate, little-endian words, {half}"
        for side in ("inner", "outer")
        for half in ("first", "last")
    },
    "bytes": {"okm raw, first", "okm raw, last"},
    "reversed bytes": {"okm reversed, first", "okm reversed, last"},
    "first half": {"okm raw, first"},
    "last half": {"okm raw, last"},
    "hex": {"okm hex, first", "okm hex, last"},
    "HEX": {"okm HEX, first", "okm HEX, last"},
    "base64 after nothing": {"okm base64, shift 0, first", "okm base64, shift 0, last"},
    "base64 after one byte": {"okm base64, shift 1, first", "okm base64, shift 1, last"},
    "base64url after two bytes": {"okm base64url, shift 2, first", "okm base64url, shift 2, last"},
    "expanded Ed25519": {"unclamped scalar raw, first", "nonce prefix raw, last"},
    "nothing": set(),
}
"""For each kind of holder, the forms in which its key must be seen."""


def test_i1_every_kind_of_holder_has_a_stated_form():
    assert set(VISIBLE) == set(HELD)


@pytest.mark.parametrize("kind", sorted(VISIBLE))
def test_i1_a_process_that_holds_a_key_is_caught(kind):
    okm = os.urandom(32)
    algorithm = {"hmac object": "HS256", "expanded Ed25519": "Ed25519"}.get(
        kind, kind.removesuffix(" subkey")
    )
    needles = Needles(key_forms.needles(algorithm, okm))
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "support.key_holder", kind]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(okm)
        holder.stdin.flush()
        assert holder.stdout.readline() == b"holding\n"
        scan = scan_process(holder.pid, needles)
        holder.stdin.close()
    assert scan.names() >= VISIBLE[kind]
    if kind == "nothing":
        assert not scan.finds, said(scan)
