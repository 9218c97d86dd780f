"""Every cell of every table: what is legal leads where it says, all else is refused (I7)."""

from __future__ import annotations

import pytest
from capsign_adapter.model import lifecycle as lc
from capsign_adapter.model.lifecycle import IntentState
from capsign_wire import key_states
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2
from capsign_wire.types.v1 import signing_pb2 as pb

TABLES = {
    "key": (lc.KEY_VERSION, lc.KeyEvent),
    "intent": (lc.INTENT, lc.IntentEvent),
    "handle": (lc.HANDLE, lc.HandleEvent),
    "rollout": (lc.ROLLOUT, lc.RolloutEvent),
    "pace": (lc.ROLLOUT_PACE, lc.PaceEvent),
}

# Written out by hand, apart from the code, so that a changed cell is seen twice.
P, A, S, D, C, X = range(1, 7)
KEY_CELLS = """
P publish P | P activate A | P compromise C | P destroy X
A suspend S | A deactivate D | A compromise C
S resume A | S deactivate D | S compromise C
D compromise C | D destroy X
C destroy X
"""


def cells():
    for name, (table, events) in TABLES.items():
        for state in table.moves:
            for event in events:
                yield pytest.param(table, state, event, id=f"{name}-{state}-{event.value}")


@pytest.mark.parametrize(("table", "state", "event"), list(cells()))
def test_each_cell_moves_or_refuses(table, state, event):
    target = table.moves[state].get(event, "refused")
    if target == "refused":
        with pytest.raises(FailureError) as caught:
            lc.move(table, state, event)
        assert caught.value.reason == failures_pb2.REASON_ILLEGAL_TRANSITION
        assert event.value in caught.value.detail
    else:
        assert lc.move(table, state, event) == target
        assert target in table.moves
        assert lc.move(table, state, lc.event_between(table, state, target)) == target


def test_key_states_are_those_of_sp_800_57_as_written_here():
    names = {"P": P, "A": A, "S": S, "D": D, "C": C, "X": X}
    written = [cell.split() for line in KEY_CELLS.strip().splitlines() for cell in line.split("|")]
    stated = {(names[start], event, names[end]) for start, event, end in written}
    actual = {
        (start, event.value, end)
        for start, moves in lc.KEY_VERSION.moves.items()
        for event, end in moves.items()
    }
    assert actual == stated
    assert set(lc.KEY_VERSION.moves) == {value for value in pb.KeyState.values() if value}


def test_nothing_leads_out_of_a_destroyed_key_and_it_neither_signs_nor_verifies():
    assert lc.KEY_VERSION.is_final(pb.KEY_STATE_DESTROYED)
    assert pb.KEY_STATE_DESTROYED not in key_states.SIGNS | key_states.VERIFIES
    assert key_states.SIGNS <= key_states.VERIFIES


def test_an_intent_is_born_final():
    assert {state for state in lc.INTENT.moves if not lc.INTENT.is_final(state)} == {None}
    assert set(lc.INTENT.moves) == {None, *IntentState}


def test_a_move_that_no_event_makes_is_refused_in_words():
    with pytest.raises(
        FailureError,
        match="destroyed does not take 'a move to active'; it takes nothing: the state is final",
    ):
        lc.event_between(lc.KEY_VERSION, pb.KEY_STATE_DESTROYED, pb.KEY_STATE_ACTIVE)


def test_an_unknown_state_is_refused_not_crashed_on():
    with pytest.raises(FailureError, match="state unknown"):
        lc.move(lc.KEY_VERSION, 99, lc.KeyEvent.ACTIVATE)


ROLLOUT_CELLS = """
PUBLISH published PROPAGATE | PROPAGATE propagated CANARY | CANARY widen CANARY
CANARY dual-sign DUAL_SIGN | CANARY promote PROMOTE | DUAL_SIGN promote PROMOTE
PROMOTE retire RETIRE | RETIRE finish DONE
"""


def test_rollouts_move_as_written_here():
    written = {
        tuple(cell.split())
        for line in ROLLOUT_CELLS.strip().splitlines()
        for cell in line.split("|")
    }
    for stage in lc.RolloutStage:
        if stage <= lc.RolloutStage.RETIRE:
            written |= {(stage.name, "abort", "ABORTED"), (stage.name, "overtake", "OVERTAKEN")}
    for stage in ("CANARY", "DUAL_SIGN", "PROMOTE"):
        written.add((stage, "roll back", "ROLLED_BACK"))
    assert written == {
        (stage.name, event.value, after.name)
        for stage, moves in lc.ROLLOUT.moves.items()
        for event, after in moves.items()
    }
    assert set(lc.ROLLOUT.moves) == set(lc.RolloutStage)
