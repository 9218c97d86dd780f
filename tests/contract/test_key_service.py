"""The life of key versions through KeyService, over real TLS, on each store."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest
from capsign_adapter.keys import labels
from capsign_adapter.model.lifecycle import KEY_VERSION, KeyEvent, Table
from capsign_evidence.leaf_kinds import Act
from capsign_evidence.leaf_reader import Admin, decode
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2
from support.adapter_rig import APPROVER, OPERATOR, POLICY, RESPONDER, AdapterRig
from support.key_calls import People, eventually
from support.replica import RunningReplica

SOON = POLICY.replace("tls:", "approvals: {destroy_wait: 1s}\ntls:")
"""What is destroyed waits as short a time as a policy may say."""


@pytest.fixture
def fleet(tmp_path, place):
    """Two replicas on one store and one token."""
    with ExitStack() as ends:
        rig = AdapterRig(tmp_path / "first", SOON, place.url, place.password_file)
        rigs = [rig, rig.beside()]
        replicas = [RunningReplica(tmp_path, rigs[0])]
        ends.callback(replicas[0].stop)
        replicas.append(RunningReplica(tmp_path, rigs[1], authority=replicas[0].authority))
        ends.callback(replicas[1].stop)
        yield replicas


@pytest.fixture
def operators(fleet):
    """An operator at each replica."""
    with ExitStack() as channels:
        yield [People(channels.enter_context(one.as_(OPERATOR))) for one in fleet]


@pytest.fixture
def operator(operators):
    return operators[0]


@pytest.fixture
def approver(fleet):
    with fleet[0].as_(APPROVER) as channel:
        yield People(channel)


def refused(call, *arguments) -> int:
    with pytest.raises(FailureError) as caught:
        call(*arguments)
    return caught.value.reason


def acts(replica, name: str) -> list[Act]:
    """What the log says was done to a version."""
    entries = [decode(entry) for entry in replica.rig.entries()]
    return [each.act for each in entries if isinstance(each, Admin) and each.target == name]


# Written out by hand, apart from the code, so that a changed cell is seen twice.
P, A, S, D, C, X = range(1, 7)
CELLS = {
    P: {"publish": P, "activate": A, "compromise": C, "destroy": X},
    A: {"suspend": S, "deactivate": D, "compromise": C},
    S: {"resume": A, "deactivate": D, "compromise": C},
    D: {"compromise": C, "destroy": X},
    C: {"destroy": X},
    X: {},
}
WAY = {
    P: (),
    A: ("activate",),
    S: ("activate", "suspend"),
    D: ("activate", "deactivate"),
    C: ("compromise",),
}
"""How a version comes into a state."""


def test_i7_every_cell_through_the_service(fleet, operators, approver):
    """Each event in each state: what is legal leads where it says, all else is refused and
    recorded. What is asked of one replica, the other one does next.
    """
    assert set(CELLS) == {value for value in signing_pb2.KeyState.values() if value}
    events = [event.value for event in KeyEvent]
    here, there = operators
    destroyed: list[int] = []
    for state, way in WAY.items():
        for event in events:
            version = here.make().version.version
            for step in way:
                here.move(step, version)
            assert here.version(version).state == state
            before = acts(fleet[0], f"demo/orders/{version}")
            if event == "destroy":
                if event in CELLS[state]:
                    approver.approve(there.propose_destruction(version))
                    destroyed.append(version)
                    continue
                assert refused(there.propose_destruction, version) == (
                    reasons.REASON_ILLEGAL_TRANSITION
                ), (state, event)
            elif event in CELLS[state]:
                moved = there.move(event, version)
                assert moved.version.state == CELLS[state][event], (state, event)
                assert here.version(version).state == CELLS[state][event]
                continue
            else:
                assert refused(there.move, event, version) == reasons.REASON_ILLEGAL_TRANSITION, (
                    state,
                    event,
                )
            assert here.version(version).state == state
            assert acts(fleet[0], f"demo/orders/{version}") == [*before, Act.KEY_MOVE_REFUSED]
    assert len(destroyed) == 3
    for version in destroyed:
        assert eventually(lambda version=version: here.version(version).state == X)
    for event in events:
        act = here.propose_destruction if event == "destroy" else here.move
        arguments = (version,) if event == "destroy" else (event, version)
        assert refused(act, *arguments) == reasons.REASON_ILLEGAL_TRANSITION, event
    assert acts(fleet[0], f"demo/orders/{version}").count(Act.KEY_MOVE_REFUSED) == len(events)


def test_i7_a_hole_in_the_table_is_seen(operator, monkeypatch):
    """With a way back from DEACTIVATED, the cell above that refuses it fails."""
    back = {KeyEvent.ACTIVATE: signing_pb2.KEY_STATE_ACTIVE}
    moves = {**KEY_VERSION.moves, signing_pb2.KEY_STATE_DEACTIVATED: back}
    table = Table(KEY_VERSION.thing, KEY_VERSION.initial, moves)
    operator.move("deactivate", 1)
    assert refused(operator.move, "activate", 1) == reasons.REASON_ILLEGAL_TRANSITION
    monkeypatch.setattr("capsign_adapter.model.key_versions.KEY_VERSION", table)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refused(operator.move, "activate", 1)


def together(*calls) -> list[str]:
    """What each gave, or the reason that it was refused for; all at once."""
    start, outcomes = threading.Barrier(len(calls)), []

    def run(call) -> None:
        start.wait()
        try:
            outcomes.append(str(call().version.version))
        except FailureError as error:
            outcomes.append(error.row.name)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(outcomes)


def test_of_replicas_that_make_a_version_at_once_one_does(fleet, operators):
    outcomes = together(*(lambda each=each: each.make(1) for each in operators))
    assert outcomes[0] in {"2", "3"}
    assert outcomes[1] == "ILLEGAL_TRANSITION"
    rig = fleet[0].rig
    made = labels.key_version("demo", "orders", int(outcomes[0]))
    assert [label for label in rig.token.labels() if label.startswith("capsign/demo/orders/")] == [
        "capsign/demo/orders/1",
        "capsign/demo/orders/1/attest",
        made,
        f"{made}/attest",
    ]
    assert rig.store.key_claims() == []


def test_of_replicas_that_move_a_version_at_once_one_does(operators):
    operators[0].make(1)
    for event in ("publish", "activate", "suspend", "compromise"):
        outcomes = together(*(lambda each=each, e=event: each.move(e, 2) for each in operators))
        assert outcomes == ["2", "ILLEGAL_TRANSITION"], event


def test_what_is_destroyed_is_proven_to_be_gone(fleet, operators, approver):
    """In the store, in the log, in the token, and for each replica's own session; nobody alone."""
    operator, elsewhere = operators
    operator.make(1)
    operator.move("activate", 2)
    operator.move("deactivate", 1)
    proposal = operator.propose_destruction(1)
    assert operator.propose_destruction(1).proposal_id == proposal.proposal_id
    assert refused(operator.approve, proposal) == reasons.REASON_ROLE_MISSING
    (pending,) = elsewhere.show().destructions
    assert (pending.version, pending.HasField("not_before")) == (1, False)
    approved = approver.approve(proposal)
    assert approved.HasField("not_before")
    assert operator.version(1).state == D
    assert eventually(lambda: elsewhere.version(1).HasField("gone_at"))
    tombstone = operator.version(1)
    assert (tombstone.state, tombstone.version) == (X, 1)
    rig = fleet[0].rig
    assert not [label for label in rig.token.labels() if label.startswith("capsign/demo/orders/1")]
    assert acts(fleet[0], "demo/orders/1")[-2:] == [Act.KEY_DESTROYED, Act.KEY_GONE]
    assert not operator.show().destructions
    rig.snapshots.refresh()
    assert rig.sign(b"m")[0].signatures


def test_a_destruction_can_be_called_off_while_it_waits(operator, approver):
    operator.make(1)
    proposal = operator.propose_destruction(2)
    assert refused(operator.move, "publish", 2) == reasons.REASON_KEY_DESTROY_PENDING
    assert refused(operator.move, "activate", 2) == reasons.REASON_KEY_DESTROY_PENDING
    approver.approve(proposal)
    operator.call_off(proposal)
    assert operator.move("activate", 2).version.state == A


def test_an_approval_is_for_the_version_as_it_was(operator, approver):
    """It was deactivated when its destruction was proposed, and is compromised now: look again."""
    operator.make(1)
    operator.move("activate", 2)
    operator.move("deactivate", 1)
    proposal = operator.propose_destruction(1)
    operator.move("compromise", 1)
    assert refused(approver.approve, proposal) == reasons.REASON_PROPOSAL_CHANGED
    assert operator.version(1).state == C


def test_a_responder_withdraws_and_does_not_give_back(fleet, operator):
    with fleet[1].as_(RESPONDER) as channel:
        responder = People(channel)
        assert responder.move("suspend", 1).version.state == S
        for event in ("resume", "deactivate", "activate", "publish"):
            assert refused(responder.move, event, 1) == reasons.REASON_ROLE_MISSING
        assert refused(responder.make, 1) == reasons.REASON_ROLE_MISSING
        assert refused(responder.propose_destruction, 1) == reasons.REASON_ROLE_MISSING
    assert operator.move("resume", 1).version.state == A
