"""`capsign revoke` against a running adapter: what it says and asks before it is done."""

from __future__ import annotations

import json

import pytest
from capsign_cli import __main__ as cli
from capsign_cli import failures, output
from support.adapter_rig import APP, APPROVER, OPERATOR, RESPONDER, AdapterRig
from support.replica import RunningReplica


@pytest.fixture
def replica(tmp_path):
    running = RunningReplica(tmp_path, AdapterRig(tmp_path / "store"))
    yield running
    running.stop()
    output.start([])


@pytest.fixture
def run(replica, tmp_path, capsys):
    """Run `capsign … -o json` as somebody; exit code, and what it said, a failure too."""

    def command(*arguments: str, who: str = RESPONDER, text: bool = False):
        name = who.rpartition("spiffe://")[2].replace("/", "-")
        certificate, key = replica.authority.issue(who).write(tmp_path, name)
        options = ["--adapter", replica.address, "--server-name", "localhost"]
        options += ["--ca", tmp_path / "ca.pem", "--cert", certificate, "--key", key]
        options += [] if text else ["-o", "json"]
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, *map(str, options)])
        told = capsys.readouterr()
        if text:
            return ended.value.code, told.out + told.err
        return ended.value.code, json.loads(told.out or told.err.splitlines()[-1])

    return command


def test_the_only_version_that_signs_is_asked_about_however_few_it_stops(replica, run):
    """It stopped a key for good without a question, since no ten workloads sign with it."""
    epoch = replica.rig.store.control().revocation_epoch
    ask = ("revoke", "key-version", "demo/orders/1")
    code, told = run(*ask, "--dry-run")
    assert (code, told["asks"], told["successors"]) == (0, True, [])
    assert APP in told["workloads"]
    assert told["what_will_happen"][0].startswith("Version 1 is the only one of demo/orders that")
    code, told = run(*ask)
    assert (code, told["error"]["reason"]) == (failures.USAGE, "NOT_CONFIRMED")
    assert "nothing is signed with this key any more" in told["error"]["message"]
    assert replica.rig.store.control().revocation_epoch == epoch
    code, told = run(*ask, "--yes")
    assert (code, told["successors"], told["revocation_epoch"]) == (0, [], epoch + 1)


def test_a_version_beside_which_another_signs_is_not_asked_about(run):
    assert run("keys", "rotate", "demo/orders", "--keep-old", "--yes", who=OPERATOR)[0] == 0
    ask = ("revoke", "key-version", "demo/orders/1")
    assert run(*ask, "--dry-run")[1]["asks"] is False
    code, told = run(*ask)
    assert (code, told["successors"]) == (0, [2])


@pytest.mark.parametrize(
    "ask", [("grant", "others"), ("key", "demo/release"), ("workload", APP), ("workload", APPROVER)]
)
def test_one_who_stops_is_enough_to_be_asked_about(run, ask):
    code, told = run("revoke", *ask)
    assert (code, told["error"]["reason"]) == (failures.USAGE, "NOT_CONFIRMED")
    assert run("revoke", *ask, "--yes")[0] == 0


def test_what_a_terminal_shows_beforehand_has_no_more_than_json(run):
    code, said = run("revoke", "workload", APPROVER, "--dry-run", text=True)
    assert (code, "It has the roles approver" in said) == (0, True)


@pytest.mark.parametrize("flags", [(), ("--dry-run",), ("--yes",)])
def test_a_typing_error_is_refused_before_anything_is_asked(run, flags):
    code, told = run("revoke", "key-version", "demo/orders/9", *flags)
    assert (code, told["error"]["reason"]) == (failures.REFUSED, "NOT_FOUND")
