"""A new state comes from the table alone (I7): production code compares states, and names none.

What names a state outside of a comparison, or of the keys of a mapping, could give it by hand, as
provisioning once made a key version ACTIVE and the ledger an intent NEVER. What turns a number into
a state could as well; only those who read rows back from the database, or show them, do that.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROOMS = ("adapter", "agent", "evidence", "witness", "clients", "k8s/injector")
TABLES = "adapter/capsign_adapter/model/lifecycle.py"
STATES = {
    "IntentState",
    "AuthorityState",
    "HandleState",
    "KeyState",
    "PolicyState",
    "RolloutPace",
    "RolloutStage",
    "ProposalState",
}
READERS = {
    "adapter/capsign_adapter/store/rollout_history.py": "_row",
    "adapter/capsign_adapter/store/rollouts.py": "_row",
    "adapter/capsign_adapter/store/authorities.py": "_row",
    "adapter/capsign_adapter/store/intents.py": "fetch",
    "adapter/capsign_adapter/store/key_versions.py": "_row",
    "adapter/capsign_adapter/store/policies.py": "_row",
    "adapter/capsign_adapter/store/proposals.py": "_row",
    "adapter/capsign_adapter/front/approval_servicer.py": "proposal_of",
    "adapter/capsign_adapter/front/policy_servicer.py": "_version",
    "clients/cli/capsign_cli/key_values.py": "state",
}
"""Who makes a state of a stored number, or shows one: file and function."""


def names_a_state(node: ast.AST) -> bool:
    if not isinstance(node, ast.Attribute):
        return False
    owner = node.value
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    if node.attr == "DESCRIPTOR":  # the words of all of them, and none of them
        return False
    return (name in STATES and node.attr.isupper()) or node.attr.startswith("KEY_STATE_")


def makes_a_state(node: ast.AST) -> bool:
    """`IntentState(n)`, `KeyState.ValueType(n)`, `KeyState.Value(name)`."""
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    if isinstance(called, ast.Attribute) and called.attr in {"ValueType", "Value"}:
        called = called.value
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in STATES


def found(source: str) -> list[tuple[str, str]]:
    """(function, what) of each state that is named outside of a comparison or made of a number."""
    seen: list[tuple[str, str]] = []

    def visit(node: ast.AST, function: str, compared: bool) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        compared = compared or isinstance(node, ast.Compare | ast.Set)  # sets are compared with
        if (names_a_state(node) and not compared) or makes_a_state(node):
            seen.append((function, ast.unparse(node)))
        looked_up = {id(key) for key in node.keys} if isinstance(node, ast.Dict) else set()
        for child in ast.iter_child_nodes(node):
            inside = compared and not isinstance(child, ast.Call)
            visit(child, function, inside or id(child) in looked_up)

    visit(ast.parse(source), "", False)
    return seen


def modules() -> list[str]:
    paths = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    names = (str(path.relative_to(ROOT)) for path in paths if "_pb2" not in path.name)
    return sorted(name for name in names if name != TABLES)


@pytest.mark.parametrize("module", modules())
def test_i7_no_module_gives_a_state_by_hand(module):
    reader = READERS.get(module)
    given = [
        (function, what)
        for function, what in found((ROOT / module).read_text())
        if function != reader
    ]
    assert given == [], "use `lifecycle.move`, or `moved` of the row, or the table's `initial`"


@pytest.mark.parametrize(
    "line",
    [
        "row = replace(row, state=signing_pb2.KEY_STATE_ACTIVE)",
        "row = KeyVersionRow(tenant, key, 1, pb.KeyState.KEY_STATE_ACTIVE, ())",
        "stored = Stored(IntentState.NEVER, grant, b'', 0)",
        "state = AuthorityState.ACTIVE",
        "state = AuthorityState(2)",
        "state = signing_pb2.KeyState.ValueType(2)",
        "tx.send('UPDATE intents SET state = ?', int(lifecycle.IntentState.DONE))",
        "done = row.state == give(IntentState.DONE)",
        "AFTER = {'revive': pb.KEY_STATE_ACTIVE}",
    ],
)
def test_i7_a_state_given_by_hand_is_seen(line):
    assert found(line)


@pytest.mark.parametrize(
    "line",
    [
        "done = row.state is IntentState.DONE",
        "kept = [row for row in rows if row.state in (S.A, AuthorityState.ACTIVE)]",
        "SIGNS = frozenset({pb.KEY_STATE_ACTIVE})",
        "WORDS = {pb.KEY_STATE_ACTIVE: 'active'}",
        "state = move(INTENT, INTENT.initial, IntentEvent.CLOSE)",
    ],
)
def test_i7_a_comparison_gives_nothing(line):
    assert not found(line)
