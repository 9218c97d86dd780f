"""A third party's verifier (Go's checksum database) reads an exported log and believes it; a forged
one it does not.
"""

import base64
import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from capsign_evidence.checkpoint import open_checkpoint, sign_checkpoint
from capsign_evidence.note import VerifierKey, open_note
from capsign_evidence.proofs import TreeReader
from capsign_evidence.receipt import make_receipt
from capsign_evidence.signing_leaf import SigningLeaf
from capsign_evidence.tiles import TileName, bundle, read_tile, tiles_of
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.log_model import MemoryLog

pytestmark = pytest.mark.system

PROGRAM = Path(__file__).parents[1] / "support" / "go_sumdb"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = VerifierKey("log.capsign.test/main", PRIVATE.public_key().public_bytes_raw())
SIZE = 66_000  # a partial tile on each of three levels


@pytest.fixture(scope="module")
def verifier(tmp_path_factory):
    """Runs the Go program on a directory."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    fetched = subprocess.run(
        ["go", "mod", "download"],
        cwd=PROGRAM,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if fetched.returncode:
        pytest.skip(f"golang.org/x/mod cannot be fetched: {fetched.stderr.strip()[:200]}")
    binary = tmp_path_factory.mktemp("go") / "go_sumdb"
    subprocess.run(
        ["go", "build", "-mod=readonly", "-o", binary, "."], cwd=PROGRAM, check=True, timeout=240
    )

    def run(directory):
        return subprocess.run(
            [binary, directory], capture_output=True, text=True, timeout=120, check=False
        )

    return run


def _entries():
    group = SigningLeaf(
        workload="spiffe://capsign.test/app",
        cert_key_hash=bytes(32),
        tenant="shop",
        key="orders",
        key_version=1,
        purpose="jwt",
        algorithm=1,
        custody=1,
        context_digest=bytes(32),
        policy_digest=bytes(32),
        grant="orders",
        handle_serial=bytes(16),
    ).prepare()
    for number in range(SIZE):
        fact = number.to_bytes(32, "big")
        yield group.signed(1_700_000_000_000 + number, fact[16:], fact, fact)


def _b64(values):
    return [base64.b64encode(value).decode() for value in values]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A log of 66,000 real entries, appended in batches of every size, as files, with claims about
    it.
    """
    log = MemoryLog()
    entries = list(_entries())
    dice = random.Random(2026)
    at = 0
    while at < SIZE:
        width = dice.randint(1, 1024)
        log.append(entries[at : at + width])
        at += width
    root = tmp_path_factory.mktemp("log")
    checkpoint = sign_checkpoint(SIZE, TreeReader(log.hashes, SIZE).root(), KEY, PRIVATE.sign)
    (root / "checkpoint").write_bytes(checkpoint)
    for tile in tiles_of(SIZE):
        _write(root / tile.path, read_tile(log.hashes, tile))
        if tile.level == 0:
            first = tile.index * 256
            _write(root / tile.entries_path, bundle(log.entries[first : first + tile.width]))
    claims = {"verifier_key": KEY.text(), "inclusion": [], "consistency": [], "receipts": []}
    for size in [
        1,
        2,
        255,
        256,
        257,
        65_535,
        65_536,
        65_537,
        SIZE,
        *(dice.randint(1, SIZE) for _ in range(40)),
    ]:
        reader = TreeReader(log.hashes, size)
        for index in {0, size - 1, dice.randrange(size)}:
            claims["inclusion"].append(
                {"index": index, "size": size, "proof": _b64(reader.inclusion(index))}
            )
        old = dice.randint(1, size)
        claims["consistency"].append(
            {
                "old": old,
                "new": size,
                "old_root": _b64([TreeReader(log.hashes, old).root()])[0],
                "new_root": _b64([reader.root()])[0],
                "proof": _b64(reader.consistency(old)),
            }
        )
    whole = TreeReader(log.hashes, SIZE)
    for index in (0, 1, SIZE // 2, SIZE - 1):
        claims["receipts"].append(make_receipt(index, whole.inclusion(index), checkpoint).decode())
    (root / "claims.json").write_text(json.dumps(claims))
    return root


def _write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_go_accepts_the_exported_log(verifier, exported):
    ran = verifier(exported)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert (result["size"], result["entries"], result["receipts"]) == (SIZE, SIZE, 4)
    assert result["inclusion"] > 100
    assert result["consistency"] == 49
    assert result["tiles"] >= 258 + 2 + 1


def test_what_go_signs_opens_here(verifier, exported):
    """Go adds its own signature to our checkpoint: ours still opens it, and both keys are seen to
    have signed.
    """
    result = json.loads(verifier(exported).stdout)
    together = result["signed_by_go"].encode()
    assert open_checkpoint(together, KEY).size == SIZE
    assert len(open_note(together, [KEY, VerifierKey.parse(result["go_key"])]).lines) == 2
    assert len(open_note(together, [VerifierKey.parse(result["go_key"])]).lines) == 2


@pytest.mark.parametrize(
    "victim",
    ["checkpoint", TileName(0, 17).path, TileName(1, 0).path, TileName(0, 100).entries_path],
)
def test_go_refuses_a_log_with_one_bit_changed(verifier, exported, tmp_path, victim):
    """Without this the acceptance above could be a verifier that looks at nothing."""
    copy = tmp_path / "log"
    shutil.copytree(exported, copy)
    data = bytearray((copy / victim).read_bytes())
    data[40] ^= 1
    (copy / victim).write_bytes(data)
    assert verifier(copy).returncode == 1


def test_go_refuses_a_proof_for_another_leaf(verifier, exported, tmp_path):
    copy = tmp_path / "log"
    shutil.copytree(exported, copy)
    claims = json.loads((copy / "claims.json").read_text())
    claims["inclusion"][-1]["index"] ^= 1
    (copy / "claims.json").write_text(json.dumps(claims))
    ran = verifier(copy)
    assert ran.returncode == 1
    assert "inclusion of" in ran.stderr
