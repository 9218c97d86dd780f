"""The grants of a policy, as they are read from its document."""

from __future__ import annotations

from pathlib import Path

import pytest
from capsign_cli.audit.policy_grants import grants_in

EXAMPLE = Path(__file__).parents[2] / "docs/examples/policy.yaml"


def test_of_each_grant_its_tenant_and_key():
    assert list(grants_in(EXAMPLE.read_bytes())) == [
        ("orders-tokens", "acme", "orders"),
        ("orders-events", "acme", "orders"),
        ("release-signing", "acme", "releases"),
    ]


def test_names_stay_what_was_written():
    text = b"grants: [{name: 1e3, tenant: no, key: 0x10}]"
    assert list(grants_in(text)) == [("1e3", "no", "0x10")]


@pytest.mark.parametrize(
    "text", [b"- a", b"{", b"grants: 7", b"grants: [{name: a, tenant: b}]", b"\xff\xfe\x00"]
)
def test_what_is_no_policy_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - this is what it promises
        list(grants_in(text))
