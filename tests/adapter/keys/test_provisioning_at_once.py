"""Replicas that start together provision together: one authority, one first version of each key,
nobody stops.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from capsign_adapter.decide.authority_schedule import Lifetimes
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.enrol.roll import Realm
from capsign_adapter.keys import provision
from capsign_adapter.keys.provision import InventoryError
from capsign_adapter.model.lifecycle import AuthorityState
from capsign_adapter.provisioning import provision_all
from capsign_adapter.store.open import open_store
from capsign_adapter.token.interface import TokenContestedError, TokenUnavailableError
from capsign_wire.types.v1 import signing_pb2
from support.adapter_rig import POLICY
from support.fake_token import FakeToken
from support.interposed import Interposed

NOW = 1_800_000_000_000
RULES = parse_policy(POLICY.encode())
REALM = Realm(
    RULES.trust_domain, lambda: RULES.digest, Lifetimes(3_600_000, 31_536_000_000, 600_000)
)
MAKING = (
    "labels",
    "generate_secret",
    "generate_key_pair",
    "attributes",
    "hmac",
    "public_key",
    "sign",
)


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite://{tmp_path}/store.db", create=True)
    yield opened
    opened.close()


class Overtaken(FakeToken):
    """Before its call number `at` another replica provisions from beginning to end."""

    def __init__(self, token: FakeToken, at: int, other) -> None:
        super().__init__(objects=token.objects)
        self._at, self._other = at, other

    def _called(self) -> None:
        self._at -= 1
        if self._at == 0:
            self._other()


def _counting(name):
    def call(self, *arguments, **named):
        self._called()
        return getattr(FakeToken, name)(self, *arguments, **named)

    return call


for _name in MAKING:
    setattr(Overtaken, _name, _counting(_name))


def provisioned(token, store):
    """Nothing is waited for: who makes a key here goes on in the same thread."""
    return provision_all(RULES, token, store, NOW, REALM, lambda _: None)


def whole(token, store) -> None:
    """What every deployment must be after its first provisioning."""
    rows, authorities = store.key_versions(), store.authorities()
    provision.assert_inventory(token, rows, RULES.tenants, authorities)
    assert provision.unknown_objects(token, rows, RULES.tenants, authorities) == []
    assert Counter((row.tenant, row.key) for row in rows) == Counter(
        (key.tenant, key.name) for key in RULES.keys
    )
    assert {row.state for row in rows} == {signing_pb2.KEY_STATE_ACTIVE}
    assert [row.state for row in authorities] == [AuthorityState.ACTIVE]


def test_another_replica_may_be_faster_at_any_moment(tmp_path):
    """Two first versions of one key, both active, and two authorities were what a replica left that
    had seen the other's key and not yet its row.
    """
    at = 1
    while True:
        store = open_store(f"sqlite://{tmp_path}/{at}.db", create=True)
        overtaken: list[Any]
        shared, overtaken = FakeToken(), []

        def other(shared=shared, store=store, overtaken=overtaken):
            # Where one stands between its own key and its row, the other may be refused: it is not
            # the one that is looked at.
            overtaken.append(True)
            try:
                provisioned(shared, store)
            except InventoryError:
                overtaken.append(False)

        token = Overtaken(shared, at, other)
        provisioned(token, store)
        whole(shared, store)
        assert provisioned(shared, store) == []
        store.close()
        if not overtaken:
            return
        at += 1


def test_a_token_that_is_contested_is_looked_at_again(store):
    token = FakeToken()
    provision.make_service_keys(token)
    token.fail(
        "generate_secret",
        TokenContestedError("another process made it at the same time"),
        after=True,
    )
    provisioned(token, store)
    whole(token, store)


def test_a_token_that_fails_is_not_tried_again(store):
    """Each further try at a token that makes keys and then fails to answer would leave another."""
    token = FakeToken()
    token.fail("generate_key_pair", TokenUnavailableError("no answer"), after=True, times=9)
    with pytest.raises(TokenUnavailableError):
        provisioned(token, store)
    assert token.calls["generate_key_pair"] == 1


def test_an_authority_whose_maker_died_before_it_signed_signs_after_the_next_run(
    store,
):
    token, dying = FakeToken(), Interposed(store)
    dying.instead(move_authority=_killed)
    with pytest.raises(KeyboardInterrupt):
        provisioned(token, dying)
    assert [row.state for row in store.authorities()] == [AuthorityState.PREPARED]
    assert provisioned(token, store) == []
    whole(token, store)


def _killed(*_):
    raise KeyboardInterrupt
