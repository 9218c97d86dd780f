"""`capsign keys` against a real adapter."""

from __future__ import annotations

import json

import pytest
from capsign_cli import __main__ as cli
from capsign_cli import failures, output
from capsign_wire.adapter.v1 import admin_pb2, admin_pb2_grpc
from support.adapter_rig import APPROVER, AUDITOR, OPERATOR, POLICY, RESPONDER, AdapterRig
from support.key_calls import People, eventually
from support.replica import RunningReplica

SOON = POLICY.replace("tls:", "approvals: {destroy_wait: 1s}\ntls:")


@pytest.fixture
def replica(tmp_path):
    running = RunningReplica(tmp_path, AdapterRig(tmp_path / "store", SOON))
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


@pytest.fixture
def run(replica, tmp_path, capsys):
    """Run `capsign keys …` as somebody; exit code, what JSON it answered, and standard error."""

    def command(*arguments, who: str = OPERATOR, table: bool = False, json_option: bool = True):
        name = who.rpartition("spiffe://")[2].replace("/", "-")
        certificate, key = replica.authority.issue(who).write(tmp_path, name)
        options = ["--adapter", replica.address, "--server-name", "localhost"]
        options += ["--ca", tmp_path / "ca.pem", "--cert", certificate, "--key", key]
        options += [] if table or not json_option else ["-o", "json"]
        with pytest.raises(SystemExit) as ended:
            cli.main(["keys", *map(str, arguments), *map(str, options)])
        out = capsys.readouterr()
        text = out.out if table else json.loads(out.out or "null")
        return ended.value.code, text, out.err

    return command


def reason(err: str) -> str:
    return json.loads(err.splitlines()[-1])["error"]["reason"]  # the adapter logs there too


def test_rotate_makes_publishes_activates_and_deactivates(run):
    code, _, err = run("rotate", "demo/orders")
    assert (code, reason(err)) == (failures.USAGE, "NOT_CONFIRMED")
    assert "capsign rollout start" in err
    code, told, _ = run("rotate", "demo/orders", "--yes")
    assert (code, told["version"], told["state"], told["was"]) == (
        0,
        "demo/orders/2",
        "active",
        [1],
    )
    _, shown, _ = run("show", "demo/orders")
    assert [(one["version"], one["state"]) for one in shown["versions"]] == [
        (2, "active"),
        (1, "deactivated"),
    ]
    assert shown["versions"][0]["published_at"]
    code, told, _ = run("rotate", "demo/orders", "--yes", "--keep-old")
    assert (code, told["version"], "was" in told) == (0, "demo/orders/3", False)


def test_a_rotation_that_broke_off_is_taken_up(replica, run):
    """Asking again made a fourth version beside the third that nobody used."""
    with replica.as_(OPERATOR) as channel:
        operator = People(channel)
        operator.make()
        operator.move("publish", 2)
    code, told, _ = run("rotate", "demo/orders", "--yes")
    assert (code, told["version"], told["was"]) == (0, "demo/orders/2", [1])


def test_a_version_is_shown_first_and_signs_when_somebody_says_so(run):
    code, told, _ = run("publish", "demo/orders", "--yes")
    assert (code, told["version"], told["state"]) == (0, "demo/orders/2", "pre-activation")
    code, _, err = run("publish", "demo/orders", "--yes")
    assert (code, reason(err)) == (failures.REFUSED, "PUBLISHED_ALREADY")
    assert "capsign keys activate demo/orders/2" in err
    code, _, err = run("activate", "demo/orders")
    assert (code, reason(err)) == (failures.USAGE, "NOT_CONFIRMED")
    assert "have been shown for" in err
    code, told, _ = run("activate", "demo/orders", "--yes")
    assert (code, told["version"], told["state"]) == (0, "demo/orders/2", "active")
    states = [one["state"] for one in run("show", "demo/orders")[1]["versions"]]
    assert states == ["active", "active"], "the one before goes on verifying, and may sign"


def test_who_activates_what_was_never_shown_is_told(replica, run):
    with replica.as_(OPERATOR) as channel:
        People(channel).make()
    code, _, err = run("activate", "demo/orders/2")
    assert (code, "were never shown" in err) == (failures.USAGE, True)
    assert run("publish", "demo/orders", "--yes")[1]["version"] == "demo/orders/2"


def test_the_version_may_be_left_out_where_only_one_can_be_meant(run):
    assert run("suspend", "demo/orders", "--yes", who=RESPONDER)[1]["state"] == "suspended"
    assert run("resume", "demo/orders", "--yes")[1]["state"] == "active"
    run("rotate", "demo/orders", "--yes", "--keep-old")
    code, _, err = run("suspend", "demo/orders", "--yes")
    assert (code, reason(err)) == (failures.USAGE, "WHICH_VERSION")
    code, told, _ = run("deactivate", "demo/orders/1", "--yes")
    assert (code, told["version"], told["state"]) == (0, "demo/orders/1", "deactivated")
    code, told, _ = run("compromise", "demo/orders/1", "--yes")
    assert (code, told["state"]) == (0, "compromised")


def told_before(err: str) -> str:
    """What somebody who did not say --yes is told."""
    error = json.loads(err.splitlines()[-1])["error"]
    assert error["reason"] == "NOT_CONFIRMED"
    return error["message"]


def test_what_will_happen_is_said_of_the_version_as_it_is(run):
    """What came out: that workloads stop signing with a version that signs nothing, and that an
    older one takes over where there is none.
    """
    said = told_before(run("suspend", "demo/orders/1")[2])
    assert "stop signing with demo/orders/1" in said
    assert said.endswith("No other version signs.")
    assert told_before(run("compromise", "demo/orders/1")[2]).endswith("No other version signs.")
    run("rotate", "demo/orders", "--yes", "--keep-old")
    said = told_before(run("deactivate", "demo/orders/2")[2])
    assert said.endswith("Version 1 signs in its place.")
    run("suspend", "demo/orders/2", "--yes")
    said = told_before(run("deactivate", "demo/orders/2")[2])
    assert said == (
        "demo/orders/2 is suspended and never signs again; what it signed verifies again."
    )
    run("deactivate", "demo/orders/2", "--yes")
    for event in ("suspend", "resume"):
        said = told_before(run(event, "demo/orders/2")[2])
        assert said == "demo/orders/2 is deactivated: the adapter will refuse this."
    said = told_before(run("publish", "demo/orders")[2])
    assert said.startswith("The public keys of a new version of demo/orders are shown")


def test_what_is_revoked_is_shown_so(replica, run):
    shown = run("show", "demo/orders")[1]["versions"]
    assert [one["revoked"] for one in shown] == [""]
    assert "revoked" not in run("list", table=True)[1]
    request = admin_pb2.RevokeRequest(
        kind=admin_pb2.REVOCATION_KIND_KEY_VERSION, target="demo/orders/1"
    )
    with replica.as_(RESPONDER) as channel:
        epoch = admin_pb2_grpc.AdminServiceStub(channel).Revoke(request).revocation_epoch
    shown = run("show", "demo/orders")[1]["versions"]
    assert [one["revoked"] for one in shown] == [f"at epoch {epoch}"]
    listed = run("list")[1]["keys"]
    assert [one["key"] for one in listed if one["revoked"]] == ["orders"]
    for arguments in (("list",), ("show", "demo/orders")):
        assert f"at epoch {epoch}" in run(*arguments, table=True)[1]
    run("rotate", "demo/orders", "--yes", "--keep-old")
    said = told_before(run("deactivate", "demo/orders/2")[2])
    assert said.endswith("No other version signs."), "the one before is revoked"


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("resume", "demo/orders/1", "--yes"), failures.REFUSED, "ILLEGAL_TRANSITION"),
        (("resume", "demo/orders", "--yes"), failures.USAGE, "WHICH_VERSION"),
        (("suspend", "demo/orders/9", "--yes"), failures.REFUSED, "NOT_FOUND"),
        (("suspend", "demo/none/1", "--yes"), failures.REFUSED, "NOT_FOUND"),
        (("create", "demo/orders"), failures.REFUSED, "ILLEGAL_TRANSITION"),
        (("show", "orders"), failures.USAGE, "USAGE"),
        (("show", "demo/orders/x"), failures.USAGE, "USAGE"),
    ],
)
def test_what_is_refused_has_its_exit_code(run, arguments, code, why):
    found, _, err = run(*arguments)
    assert (found, reason(err)) == (code, why)


def test_who_has_not_the_role_is_refused(run):
    code, _, err = run("suspend", "demo/orders/1", "--yes", who=AUDITOR)
    assert (code, reason(err)) == (failures.REFUSED, "ROLE_MISSING")
    assert run("show", "demo/orders", who=AUDITOR)[0] == 0


def test_a_destruction_from_proposal_to_tombstone(replica, run):
    run("rotate", "demo/orders", "--yes")
    code, told, _ = run("destroy", "demo/orders/1", "--yes")
    assert (code, told["waits_s"]) == (0, 1)
    assert told["next"].endswith(f"capsign approvals approve {told['proposal']}")
    _, shown, _ = run("show", "demo/orders")
    assert shown["to_be_destroyed"] == [f"version 1 by proposal {told['proposal']}, not approved"]
    with replica.as_(OPERATOR) as channel:
        proposal = People(channel).propose_destruction(1)
    with replica.as_(APPROVER) as channel:
        People(channel).approve(proposal)
    assert "at 20" in run("show", "demo/orders")[1]["to_be_destroyed"][0]

    def gone():
        return run("show", "demo/orders")[1]["versions"][1]["gone_at"]

    assert eventually(gone)
    assert run("show", "demo/orders")[1]["versions"][1]["state"] == "destroyed"


def test_people_read_a_table(run):
    code, text, _ = run("show", "demo/orders", table=True)
    assert code == 0
    assert "orders-jwt, others, slow, thrice" in text
    assert "adapter-memory" in text or "hsm-derived" in text


def test_jwks_prints_what_verifiers_fetch(replica, run):
    with replica.as_(OPERATOR) as channel:
        operator = People(channel)
        operator.make()
        operator.move("publish", 2)
    code, told, _ = run("jwks", "orders-jwt", "--role", "issuer", json_option=False)
    assert code == 0
    states = {key["capsign_version"]: key["capsign_state"] for key in told["keys"]}
    assert states == {1: "active", 2: "pre-activation"}
    assert {key["alg"] for key in told["keys"]} == {"EdDSA", "ES256", "ML-DSA-65"}
    code, _, err = run("jwks", "orders-jwt", json_option=False)
    assert (code, "Name the role" in err) == (failures.REFUSED, True)


def test_an_agent_has_no_path_of_a_set(run):
    code, _, err = run("jwks", "orders-jwt", "--path", "--socket", "/run/s", json_option=False)
    assert (code, "Leave one of them out" in err) == (failures.USAGE, True)


def test_jwks_says_where_verifiers_find_it(run):
    code, path, _ = run("jwks", "thrice", "--path", table=True)
    assert (code, path.strip()) == (0, "/v1/jwks/demo/thrice?protocol=jwt&role=issuer&version=1")
