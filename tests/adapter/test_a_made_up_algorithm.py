"""A new algorithm is a value in the proto, a row in each process's table, and vectors: nothing else
knows one algorithm from another. Here one is made up, put into the tables, and signs.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from capsign_adapter.algorithms.derived import ed25519_subkey
from capsign_adapter.algorithms.table import TABLE, Derived, Row
from capsign_agent.sign import verify
from capsign_wire.algorithms import ALGORITHMS, BY_NAME
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import signing_pb2
from support.adapter_rig import POLICY, AdapterRig, peer
from support.signed import only

NUMBER, NAME = alg.ALGORITHM_PS256, "Made-Up-1"
"""A value cannot be added to the proto while it runs, so another algorithm lends its own."""


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows, as one who adds an algorithm would write them, and taken out again."""
    row = replace(ALGORITHMS[alg.ALGORITHM_ED25519], number=NUMBER, name=NAME, jose=NAME)
    rows: list[tuple[Mapping[Any, Any], Any, Any]] = [
        (ALGORITHMS, NUMBER, row),
        (BY_NAME, NAME, row),
        (TABLE, NUMBER, Row(Derived(ed25519_subkey, 60))),
        (verify.CHECKS, NUMBER, verify.CHECKS[alg.ALGORITHM_ED25519]),
    ]
    for table, key, value in rows:
        [inside] = gc.get_referents(table)  # the tables are read-only views
        monkeypatch.setitem(inside, key, value)


def test_it_signs_is_recorded_and_verifies(made_up, tmp_path):
    rig = AdapterRig(tmp_path / "made-up", POLICY.replace("[Ed25519, ", f"[{NAME}, Ed25519, "))
    (item,) = rig.sign(b"hello", algorithm=NUMBER)
    handle = rig.handle()
    suffix = signing_pb2.ContextSuffix(role="issuer")
    ((key, _),) = rig.keys.of(peer(), handle, NUMBER, suffix)
    signed = verify.Signed(b"hello", None, only(item))
    assert verify.verifies(NUMBER, key.spki, signed)
    assert not verify.verifies(NUMBER, key.spki, signed._replace(message=b"other"))
    assert not verify.verifies(alg.ALGORITHM_ES256, key.spki, signed)
    # Another context than that of the algorithm whose mathematics it borrows.
    ((ed25519, _),) = rig.keys.of(peer(), handle, alg.ALGORITHM_ED25519, suffix)
    assert ed25519.spki != key.spki


CHOSEN = {
    "adapter/capsign_adapter/algorithms/table.py": "the adapter's table",
    "agent/capsign_agent/sign/verify.py": "the agent's table",
    "adapter/capsign_adapter/decide/cost.py": "the price of verifying an HS256 tag",
    "adapter/capsign_adapter/decide/policy_lint.py": "advises against RS256",
    "adapter/capsign_adapter/front/signing_servicer.py": "verifies HS256 tags",
    "adapter/capsign_adapter/keys/attestation.py": "attestations are ES256",
    "adapter/capsign_adapter/keys/authority_key.py": "certificates are signed with ES256",
    "adapter/capsign_adapter/keys/destruction.py": "attestation keys are ES256",
    "adapter/capsign_adapter/keys/log_keys.py": "checkpoints are Ed25519 (C2SP)",
    "adapter/capsign_adapter/keys/provision.py": "attestation, authority and log keys",
    "agent/capsign_agent/sign/lookups.py": "an HS256 tag is verified by the adapter",
}


def test_nothing_beside_the_tables_tells_algorithms_apart():
    """Whoever adds one must not have to find a dictionary in eleven modules, as it once was."""
    root = Path(__file__).resolve().parents[2]
    names = [value.name for value in alg.Algorithm.DESCRIPTOR.values if value.number]
    naming = {
        str(file.relative_to(root))
        for folder in ("adapter", "agent", "evidence", "k8s/injector", "clients/python")
        for file in (root / folder).rglob("*.py")
        if any(name in file.read_text(encoding="utf-8") for name in names)
    }
    assert naming == set(CHOSEN)
