"""The history of a key, a tenant, a grant, a workload: what was done to it is found by its name,
and what was done to all that it is part of.

A key whose revocation was lifted, and a tenant that was erased, had no such history.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from capsign_evidence import leaf
from capsign_evidence.archive.act_targets import PROPOSED, TARGETS
from capsign_evidence.archive.entry_events import of_entry, word
from capsign_evidence.archive.scan import find
from capsign_evidence.archive.selection import Selection, select
from capsign_evidence.archive.summary import summarise
from capsign_evidence.drift_leaf import DRIFT_ACTS
from capsign_evidence.leaf_kinds import PROPOSAL_ACTS, Act, GlassReason, ProposedAct
from capsign_evidence.rollout_leaf import STEP_ACTS
from support.evidence_at_rest import POLICY, T0, MemoryArchive, signed

ANN = "spiffe://capsign.test/people/ann"
SERVICE = "spiffe://capsign.test/ns/shop/sa/returns"
SERIAL, HASH = b"\x45" * 16, b"\xab" * 32

KEY: dict[str, Any] = {"tenant": "books", "key": "ledger"}
VERSION: dict[str, Any] = KEY | {"version": 3}
TENANT: dict[str, Any] = {"tenant": "books"}

ON: list[tuple[Act, str, list[Any]]] = [
    *((act, "books/ledger/3", [VERSION, KEY, TENANT]) for act in TARGETS if "KEY_" in act.name),
    (Act.KEY_REVOKED, "books/ledger", [VERSION, KEY, TENANT]),
    (Act.KEY_MOVE_REFUSED, "books/ledger", [KEY, TENANT]),
    (Act.ROLLOUT_MOVE_REFUSED, "books/ledger", [KEY, TENANT]),
    (Act.TENANT_REVOKED, "books", [VERSION, KEY, TENANT]),
    (Act.TENANT_ERASED, "books", [VERSION, KEY, TENANT]),
    (Act.PEPPER_GONE, "books", [VERSION, KEY, TENANT]),
    (Act.COMMITMENTS_TOLD, "books", [TENANT]),
    (Act.GRANT_REVOKED, "returns-jwt", [{"grant": "returns-jwt"}]),
    (Act.WORKLOAD_REVOKED, SERVICE, [{"workload": SERVICE}]),
    (Act.HANDLE_REVOKED, SERIAL.hex(), [{"handle": SERIAL}]),
    (Act.EVERYTHING_REVOKED, "*", [VERSION, KEY, {"workload": SERVICE}, {"handle": SERIAL}]),
    (Act.REVOCATION_LIFTED, "key/books/ledger", [VERSION, KEY, TENANT]),
    (Act.REVOCATION_LIFTED, "key-version/books/ledger/3", [VERSION, KEY, TENANT]),
    (Act.REVOCATION_LIFTED, "tenant/books", [VERSION, KEY, TENANT]),
    (Act.REVOCATION_LIFTED, "grant/returns-jwt", [{"grant": "returns-jwt"}]),
    (Act.REVOCATION_LIFTED, f"handle/{SERIAL.hex()}", [{"handle": SERIAL}]),
    (Act.REVOCATION_LIFTED, SERVICE, [{"workload": SERVICE}]),
    (Act.REVOCATION_LIFTED, "*", [VERSION, KEY, TENANT, {"grant": "returns-jwt"}]),
    (
        Act.SIGNATURE_REPORTED,
        f"incident/signature-without-leaf/{HASH.hex()}",
        [{"signature": HASH}],
    ),
    *((act, "1/" + "cd" * 32, []) for act in TARGETS if act.name.startswith("POLICY_")),
    *((act, "authority/2", []) for act in TARGETS if act.name.startswith("AUTHORITY_")),
    (Act.LOG_OPENED, "*", []),
    (Act.INCIDENT_CLOSED, "incident/gap/12", []),
    (Act.PROPOSAL_MOVE_REFUSED, "07" * 16, []),
]
"""An act, its target, and what is asked by whoever must be told of it."""

ASIDE = [{"tenant": "shop", "key": "orders"}, {"workload": "spiffe://capsign.test/ns/a/sa/b"}]


def proposed(act: ProposedAct, target: str) -> bytes:
    what = leaf.Proposed(b"\x07" * 16, act, target, b"\x01" * 32)
    return leaf.proposal(T0 + 1000, POLICY, Act.APPROVED, ANN, what, GlassReason.NONE, 0)


PROPOSALS = [
    (ProposedAct.KEY_DESTROY, "books/ledger/3", [VERSION, KEY, TENANT]),
    (ProposedAct.REVOCATION_LIFT, "key/books/ledger", [VERSION, KEY, TENANT]),
    (ProposedAct.REVOCATION_LIFT, "*", [VERSION, KEY, {"workload": SERVICE}]),
    (ProposedAct.TENANT_ERASE, "books", [VERSION, KEY, TENANT]),
    (ProposedAct.POLICY, "1/" + "cd" * 32, []),
]


def test_each_act_is_in_the_table():
    elsewhere = PROPOSAL_ACTS | STEP_ACTS | DRIFT_ACTS
    assert set(TARGETS) == set(Act) - elsewhere
    assert {act for act, _, _ in ON} == set(TARGETS)
    assert set(PROPOSED) == set(ProposedAct) == {act for act, _, _ in PROPOSALS}


BEFORE = [signed(number, T0 + number) for number in range(256)]
SUMMARY_BEFORE = summarise(0, BEFORE, []).encode()


def ask(entry: bytes, asked: dict) -> list[int]:
    """What is found in a log of two tiles, of which the second begins with the entry."""
    archive = MemoryArchive([*BEFORE, entry, *BEFORE[1:]])
    second = summarise(256, [entry, *BEFORE[1:]], []).encode()
    archive.held_summaries = {0: SUMMARY_BEFORE, 1: second}
    selection = selected(asked)
    return [event.index for event in find(archive, selection)]


def selected(asked: dict) -> Selection:
    return Selection(select({name: [value] for name, value in asked.items()}))


@pytest.mark.parametrize(
    ("entry", "asked"),
    [
        *((leaf.admin(T0 + 999, POLICY, act, ANN, on, 1), asked) for act, on, asked in ON),
        *((proposed(act, on), asked) for act, on, asked in PROPOSALS),
    ],
    ids=[f"{word(act)} {on[:24]}" for act, on, _ in [*ON, *PROPOSALS]],
)
def test_an_act_is_found_by_what_it_was_on(entry, asked):
    for one in asked:
        assert ask(entry, one) == [256], one
    event = of_entry(0, entry)
    if event.target != "*":
        assert not any(selected(one).matches(event) for one in ASIDE)


def test_summaries_stay_what_they_were():
    """Stores and files hold them; one that is made anew must have the same bytes, or `audit verify`
    says that somebody changed it.
    """
    acts = [leaf.admin(T0, POLICY, act, ANN, on, 1) for act, on, _ in ON]
    entries = [*acts, *(proposed(act, on) for act, on, _ in PROPOSALS)]
    together = sha256(b"".join(summarise(0, [one], []).encode() for one in entries)).hexdigest()
    assert together == "c78801f8a588f1eaca9e50abd35105c6079c1e705b82543b9e9044bde09b88dd"
