"""Exit codes, errors and help, without any process."""

from __future__ import annotations

import json
import subprocess
import sys

import grpc
import pytest
from capsign.errors import Refused, Unavailable, Unknown
from capsign_cli import __main__ as cli
from capsign_cli import failures
from capsign_wire.failures import REASONS, FailureError
from capsign_wire.types.v1 import failures_pb2 as pb


def run(*arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


@pytest.mark.parametrize(
    ("kind", "code"), [(Refused, failures.REFUSED), (Unknown, failures.UNKNOWN), (Unavailable, failures.UNAVAILABLE)]
)
def test_three_outcomes_are_three_exit_codes(kind, code, capsys):
    told = failures.told(kind("REASON", "It went so. Do this.", advice="Do this.", intent_id=b"\x01" * 16))
    assert (told.exit_code, told.message, told.advice) == (code, "It went so.", "Do this.")
    failures.show(told)
    assert ("01" * 16 in capsys.readouterr().err) == (kind is Unknown)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_has_an_exit_code(reason):
    told = failures.told(FailureError(reason, "So it was."))
    expected = {pb.OUTCOME_REFUSED: 1, pb.OUTCOME_UNKNOWN: 3, pb.OUTCOME_UNAVAILABLE: 4}[REASONS[reason].outcome]
    assert (told.exit_code, told.reason, told.message) == (expected, REASONS[reason].name, "So it was.")


def test_a_failed_connection_is_unavailable():
    class Broken(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.UNAVAILABLE

    assert failures.told(Broken()).exit_code == failures.UNAVAILABLE


def test_a_defect_is_not_explained_away():
    assert failures.told(ZeroDivisionError()) is None


@pytest.mark.parametrize("command", [[], *[[name] for name in cli.COMMANDS], ["dev", "up"], ["keys", "list"], ["log", "verify"]])
def test_help_everywhere(command, capsys):
    code, out, _ = run(*command, "--help", capsys=capsys)
    assert code == 0
    assert "Usage: capsign" in out


def test_help_imports_no_command():
    code = "import sys; from capsign_cli.__main__ import capsign\ntry: capsign(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('grpc', 'rich', 'cryptography', 'capsign_cli.signing') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["sign"],
        ["sign", "-a", "ES256", "--dir", "/nonexistent"],
        ["verify", "-a", "ES256", "-s", "!!", "--socket", "/nonexistent"],
        ["dev", "up", "--workers", "0"],
        ["keys", "list", "--adapter", "h:1"],
        ["dev", "status", "--dir", "/nonexistent"],
    ],
)
def test_wrong_use_is_exit_code_2_with_a_next_step(arguments, capsys, monkeypatch):
    monkeypatch.delenv("CAPSIGN_SOCKET", raising=False)
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: PTH123, SIM115 - closed with the process
    code, _, err = run(*arguments, capsys=capsys)
    assert code == failures.USAGE
    assert "Traceback" not in err


def test_errors_for_machines_are_json(capsys):
    code, out, err = run("dev", "status", "--dir", "/nonexistent", "-o", "json", capsys=capsys)
    error = json.loads(err)["error"]
    assert (code, out, error["outcome"], error["reason"]) == (2, "", "usage", "NOTHING_THERE")
    assert "capsign dev up" in error["advice"]


def test_no_agent_is_unavailable_and_signs_nothing(capsys, tmp_path):
    file = tmp_path / "message"
    file.write_bytes(b"m")
    missing = str(tmp_path / "agent.sock")
    code, _, err = run("sign", str(file), "-a", "ES256", "-p", "jwt", "--socket", missing, "--timeout", "0.3", capsys=capsys)
    assert code == failures.UNAVAILABLE
    assert "→" in err


def test_completion_code(capsys):
    code, out, _ = run("completion", "bash", capsys=capsys)
    assert code == 0
    assert "_CAPSIGN_COMPLETE=bash_complete" in out
