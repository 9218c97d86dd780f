"""I7: what has a life moves only along the table; the ledger's rows, once there, do not move at
all.
"""

from __future__ import annotations

import itertools

import pytest
from capsign_adapter.model import lifecycle
from capsign_adapter.model.lifecycle import IntentState
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2
from support.adapter_rig import peer

TABLES = (
    lifecycle.KEY_VERSION,
    lifecycle.INTENT,
    lifecycle.HANDLE,
    lifecycle.ROLLOUT,
    lifecycle.ROLLOUT_PACE,
    lifecycle.AUTHORITY,
    lifecycle.PROPOSAL,
    lifecycle.POLICY,
)
FORBIDDEN = [
    (signing_pb2.KEY_STATE_DESTROYED, state)
    for state in signing_pb2.KeyState.values()
    if state != signing_pb2.KEY_STATE_DESTROYED
] + [
    (signing_pb2.KEY_STATE_COMPROMISED, signing_pb2.KEY_STATE_ACTIVE),
    (signing_pb2.KEY_STATE_PRE_ACTIVATION, signing_pb2.KEY_STATE_SUSPENDED),
]
"""NIST SP 800-57 part 1, section 7: nothing comes back from destruction or compromise, and only
what was active is suspended.
"""


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.thing)
def test_i7_every_cell_of_the_table_is_legal_or_refused(table):
    events = {event for moves in table.moves.values() for event in moves}
    for state, event in itertools.product(table.moves, events):
        if event in table.moves[state]:
            assert lifecycle.move(table, state, event) in table.moves
        else:
            with pytest.raises(FailureError) as caught:
                lifecycle.move(table, state, event)
            assert caught.value.reason == reasons.REASON_ILLEGAL_TRANSITION


def forbidden_moves(table) -> list[tuple[int, int]]:
    return [
        (state, after)
        for state, moves in table.moves.items()
        for after in moves.values()
        if (state, after) in FORBIDDEN
    ]


def test_i7_the_table_of_keys_has_no_move_that_sp_800_57_forbids():
    assert forbidden_moves(lifecycle.KEY_VERSION) == []


def test_i7_a_table_that_brings_a_destroyed_key_back_is_seen():
    moves = {state: dict(out) for state, out in lifecycle.KEY_VERSION.moves.items()}
    moves[signing_pb2.KEY_STATE_DESTROYED] = {
        lifecycle.KeyEvent.ACTIVATE: signing_pb2.KEY_STATE_ACTIVE
    }
    assert (
        forbidden_moves(lifecycle.Table("key version", lifecycle.KEY_VERSION.initial, moves)) != []
    )


@pytest.mark.parametrize("state", list(IntentState))
def test_i7_a_row_of_the_ledger_is_final_whatever_comes_after_it(rig, state):
    intent = new_intent_id()
    thief = signing_pb2.ContextSuffix(role="thief")
    if state == IntentState.DONE:
        rig.sign(b"m", intents=[intent])
    elif state == IntentState.REFUSED:
        rig.sign(b"m", intents=[intent], context=thief)
    else:
        rig.store.resolve(peer().spiffe_id, intent, "orders-jwt", b"never", 2_000_000_000_000)
    (before,) = rig.store.find(peer().spiffe_id, [intent]).values()
    assert before.state == state
    rig.sign(b"m", intents=[intent])
    rig.sign(b"another", intents=[intent])
    rig.sign(b"m", intents=[intent], context=thief)
    rig.store.resolve(peer().spiffe_id, intent, "orders-jwt", b"never", 2_000_000_000_000)
    (after,) = rig.store.find(peer().spiffe_id, [intent]).values()
    assert after == before
