"""The script of docs/operations/receipts.md, as it stands there: an outsider needs nothing of
ours.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import pytest
from support.bundles import MESSAGE, SignedLog, log_key_of
from support.pages import blocks

PAGE = "docs/operations/receipts.md"


@pytest.fixture(scope="module")
def signed() -> SignedLog:
    return SignedLog()


@pytest.fixture
def check(tmp_path, signed):
    """Runs it in a Python that finds none of our packages; what it said, empty if it failed."""
    [script] = [block.text for block in blocks(PAGE) if "check.py BUNDLE" in block.text]
    (tmp_path / "check.py").write_text(script)

    def run(bundle: dict, message: bytes = MESSAGE, key: str = "") -> str:
        (tmp_path / "bundle").write_text(json.dumps(bundle))
        (tmp_path / "message").write_bytes(message)
        (tmp_path / "key.pem").write_text(signed.pem)
        trusted = key or signed.verifier_key.text()
        command = [sys.executable, "-I", "-S", "check.py", "bundle", "message", trusted, "key.pem"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return ran.stdout if ran.returncode == 0 else ran.stderr.splitlines()[-1]

    return run


def test_it_takes_a_good_bundle(check, signed):
    assert check(signed.bundle()) == "verified: leaf 300 of log.capsign.test/main\n"


def test_it_refuses_what_is_not_good(check, signed):
    [member] = signed.bundle()["signatures"]
    stranger, _ = log_key_of(9)
    entry = bytearray(signed.entry)
    entry[70] ^= 1
    forged = member | {"value": base64.b64encode(b"forged").decode()}
    assert "another message" in check(signed.bundle(), message=b"another")
    assert "not this log's" in check(signed.bundle(), key=stranger.text())
    changed = base64.b64encode(entry).decode()
    assert "not in the log" in check(signed.bundle(entry=changed))
    assert "another signature" in check(signed.bundle(signatures=[forged]))


def test_it_is_short():
    [script] = [block.text for block in blocks(PAGE) if "check.py BUNDLE" in block.text]
    code = [line for line in script.splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 60
