"""`capsign verify` with a rule: what is asked for, and what is refused before."""

from __future__ import annotations

import base64
import io
import json
import shutil
import tempfile
from pathlib import Path

import capsign
import pytest
from capsign_cli import __main__ as cli
from capsign_cli import output
from support.fake_agent import FakeAgent


@pytest.fixture
def agent():
    folder = Path(tempfile.mkdtemp(prefix="capsign-"))
    fake = FakeAgent(folder / "agent.sock").start()
    yield fake
    fake.stop()
    shutil.rmtree(folder)
    output.start([])


@pytest.fixture
def made(agent):
    """The two signatures of one call, by two algorithms."""
    wish = {"purpose": "jwt"}
    with capsign.Signer(agent.path) as signer:
        return {
            name: signer.sign(b"message", algorithm=name, **wish).value
            for name in ("ES256", "Ed25519")
        }


@pytest.fixture
def verify(agent, monkeypatch, capsys):
    def command(*arguments, message: bytes = b"message"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(message)))
        asked = ["verify", "--socket", agent.path, "-p", "jwt", *arguments, "-o", "json"]
        with pytest.raises(SystemExit) as ended:
            cli.main([*map(str, asked)])
        out = capsys.readouterr()
        reason = json.loads(out.err.splitlines()[-1])["error"]["reason"] if out.err else ""
        return ended.value.code, reason

    return command


def text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def named(made, *names: str) -> list[str]:
    return [part for name in names for part in ("-s", f"{name}:{text(made[name])}")]


@pytest.fixture
def both(made, tmp_path):
    """What `capsign sign -o json` prints while two keys sign."""
    path = tmp_path / "signed.json"
    first, second = ({"signature": text(made[name]), "algorithm": name} for name in made)
    path.write_text(json.dumps({**first, "others": [second]}))
    return path


def test_one_signature_as_ever(verify, made):
    assert verify("-a", "ES256", "-s", text(made["ES256"])) == (0, "")
    assert verify(*named(made, "ES256")) == (0, "")
    assert verify(*named(made, "ES256"), message=b"another") == (1, "SIGNATURE_INVALID")


@pytest.mark.parametrize(
    "rule",
    [["--rule", "required", "--require", "Ed25519"], ["--require", "Ed25519"], ["--rule", "both"]],
    ids=" ".join,
)
def test_a_second_signature_that_was_stripped_on_the_way(verify, made, both, rule):
    assert verify(*named(made, "ES256"), *rule) == (1, "SIGNATURE_MISSING")
    assert verify("--signed", both, *rule) == (0, "")
    assert verify(*named(made, "ES256", "Ed25519"), *rule) == (0, "")


def test_either_takes_the_good_one_and_others_do_not(verify, made):
    bad = ["-s", f"ES256:{text(b'bad')}", *named(made, "Ed25519")]
    assert verify(*bad) == (0, "")
    assert verify(*bad, "--rule", "either") == (0, "")
    for rule in (["--rule", "both"], ["--require", "Ed25519"]):
        assert verify(*bad, *rule) == (1, "SIGNATURE_INVALID")


def test_a_file_with_a_signature(verify, made, tmp_path):
    raw = tmp_path / "a:signature"
    raw.write_bytes(made["ES256"])
    assert verify("-a", "ES256", "-s", f"@{raw}") == (0, "")


def test_a_large_file_is_hashed_once_for_signatures_of_one_digest_only(verify, agent, both):
    assert verify("--signed", both, message=b"x" * 100_000) == (2, "INPUT_TOO_LARGE")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-s", "AAAA"],
        ["-a", "ES256", *["-s", "AAAA"] * 3],
        ["-s", "ES256:!!"],
        ["-a", "ES256", "-s", "AAAA", "--rule", "required"],
        ["-a", "ES256", "-s", "AAAA", "--rule", "either", "--require", "ES256"],
        ["-a", "ES256", "-s", "AAAA", "--rule", "neither"],
    ],
)
def test_wrong_use(verify, agent, arguments):
    assert verify(*arguments) == (2, "USAGE")
    assert agent.listings == 0


def test_what_is_for_bundles_needs_one(verify, made, tmp_path):
    given = named(made, "ES256")
    assert verify(*given, "--max-age", "5") == (2, "USAGE")
    assert verify(*given, "--kid", "a") == (2, "USAGE")


def test_a_signature_is_told_before_its_bundle_is_made(agent, tmp_path, monkeypatch, capsys):
    """The bundle failed, and of the signature that was made there was no word."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"message")))
    where = ["--socket", agent.path, "-p", "jwt", "-a", "ES256", "-o", "json"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["sign", *where, "--bundle", str(tmp_path / "none" / "bundle"), "--timeout", "1"])
    out = capsys.readouterr()
    assert ended.value.code != 0
    intent = json.loads(out.out)["intent_id"]
    error = json.loads(out.err.splitlines()[-1])["error"]
    assert error["intent_id"] == intent
    assert f"--intent {intent}" in error["advice"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"signature": 1, "algorithm": "ES256"}'])
def test_what_is_no_answer_of_sign(verify, tmp_path, content):
    path = tmp_path / "signed.json"
    path.write_text(content)
    assert verify("--signed", path) == (2, "NOT_SIGNED")
