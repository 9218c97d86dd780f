"""`capsign verify` with a rule: what is asked of the agent, and what is refused before."""

from __future__ import annotations

import base64
import io
import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from capsign.signature_rule import Signatures
from capsign_cli import __main__ as cli
from capsign_cli import output, signing

OLD, NEW = b"old signature", b"new signature"
KEY = SimpleNamespace(kid="k", algorithm="ES256", version=1, state="active")


class Agent:
    """Takes what a Signer takes, by the real rule, and finds everything good."""

    def __init__(self) -> None:
        self.asked: list[dict] = []

    def verify(self, message, signature, *, rule="either", required=(), algorithm=None, **rest):
        given = Signatures(signature, algorithm, rule, required)
        parts = [(row.name, value) for row, value in given.parts]
        self.asked.append({"message": message, "parts": parts, "rule": rule, "all": given.is_all})
        self.asked[-1]["digest"] = rest["digest"]
        return KEY


@pytest.fixture
def agent(monkeypatch):
    made = Agent()

    @contextmanager
    def at(path, timeout):
        yield made

    monkeypatch.setattr(signing, "signer_at", at)
    yield made
    output.start([])


@pytest.fixture
def verify(agent, monkeypatch, capsys):
    def command(*arguments, message: bytes = b"message"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(message)))
        with pytest.raises(SystemExit) as ended:
            cli.main(["verify", "--socket", "/a", "-p", "jwt", *map(str, arguments), "-o", "json"])
        return ended.value.code, capsys.readouterr().err

    return command


def text(value: bytes) -> str:
    return base64.b64encode(value).decode()


@pytest.fixture
def both(tmp_path):
    """What `capsign sign -o json` prints while two keys sign."""
    path = tmp_path / "signed.json"
    second = {"signature": text(NEW), "algorithm": "ML-DSA-65"}
    path.write_text(json.dumps({"signature": text(OLD), "algorithm": "ES256", "others": [second]}))
    return path


def test_one_signature_as_ever(verify, agent):
    assert verify("-a", "ES256", "-s", text(OLD))[0] == 0
    assert verify("-s", f"ES256:{text(OLD)}")[0] == 0
    first, second = agent.asked
    assert first == second
    assert (first["parts"], first["all"]) == ([("ES256", OLD)], False)


@pytest.mark.parametrize(
    "rule", [["--rule", "both"], ["--rule", "required", "--require", "ML-DSA-65"]]
)
def test_a_rule_that_asks_for_more_than_there_is(verify, agent, both, rule):
    """A second signature that was stripped on the way."""
    assert verify("--signed", both, *rule)[0] == 0
    assert verify("-s", f"ES256:{text(OLD)}", "-s", f"ML-DSA-65:{text(NEW)}", *rule)[0] == 0
    assert agent.asked[0] == agent.asked[1]
    assert agent.asked[0]["parts"] == [("ES256", OLD), ("ML-DSA-65", NEW)]
    assert agent.asked[0]["all"]
    code, err = verify("-s", f"ES256:{text(OLD)}", *rule)
    assert code == 1
    assert json.loads(err.splitlines()[-1])["error"]["reason"] == "SIGNATURE_MISSING"
    assert len(agent.asked) == 2


def test_require_alone_is_the_rule(verify, agent, both):
    assert verify("--signed", both, "--require", "ML-DSA-65")[0] == 0
    assert agent.asked[0]["all"]


def test_a_file_with_a_signature(verify, agent, tmp_path):
    raw = tmp_path / "a:signature"
    raw.write_bytes(OLD)
    assert verify("-a", "ES256", "-s", f"@{raw}")[0] == 0
    assert agent.asked[0]["parts"] == [("ES256", OLD)]


def test_a_large_file_is_hashed_once_for_signatures_of_one_digest_only(verify, agent, both):
    large = b"x" * 100_000
    assert verify("-s", f"ES256:{text(OLD)}", "-s", f"RS256:{text(NEW)}", message=large)[0] == 0
    assert (agent.asked[0]["message"], len(agent.asked[0]["digest"])) == (None, 32)
    assert verify("--signed", both, message=large)[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-s", text(OLD)],
        ["-a", "ES256", *["-s", text(OLD)] * 3],
        ["-s", "ES256:!!"],
        ["-a", "ES256", "-s", text(OLD), "--rule", "required"],
        ["-a", "ES256", "-s", text(OLD), "--rule", "either", "--require", "ES256"],
        ["-a", "ES256", "-s", text(OLD), "--rule", "neither"],
    ],
)
def test_wrong_use(verify, agent, arguments):
    assert verify(*arguments)[0] == 2
    assert agent.asked == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"signature": 1, "algorithm": "ES256"}'])
def test_what_is_no_answer_of_sign(verify, tmp_path, content):
    path = tmp_path / "signed.json"
    path.write_text(content)
    assert verify("--signed", path)[0] == 2
