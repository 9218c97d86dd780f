"""Check values are asked for in turn, and what differed is asked again."""

from __future__ import annotations

import pytest
from capsign_adapter.drift.key_checks import LEAST, Checked, KeyChecks
from capsign_adapter.keys import check_values
from support.fake_token import FakeToken

KEYS = 3 * LEAST


class Counting:
    """A token that says which keys it was asked about."""

    def __init__(self) -> None:
        self.token = FakeToken()
        self.asked: list[str] = []
        self.keys = []
        for number in range(KEYS):
            label = f"capsign/demo/k{number:02}/1"
            self.token.generate_secret(label)
            self.keys.append(Checked(label, check_values.of_secret(self.token, label), True))

    def hmac(self, label: str, data: bytes) -> bytes:
        self.asked.append(label)
        return self.token.hmac(label, data)

    def replace(self, number: int) -> str:
        label = self.keys[number].label
        self.token.destroy(label)
        self.token.generate_secret(label)
        return label


@pytest.fixture
def held():
    return Counting()


def test_few_keys_are_all_asked_for_at_each_look(held):
    checks = KeyChecks()
    for _ in range(2):
        assert checks.differences(held, held.keys, KEYS) == ()
    assert len(held.asked) == 2 * KEYS


def test_of_many_each_has_its_turn(held):
    checks = KeyChecks(compared=1)
    for _ in range(KEYS // LEAST):
        checks.differences(held, held.keys, 5_000)
    assert held.asked == [one.label for one in held.keys]


def test_what_was_replaced_is_found_in_its_turn_and_asked_for_until_it_is_right(held):
    checks, label = KeyChecks(compared=1), held.replace(LEAST + 1)
    assert checks.differences(held, held.keys, 5_000) == ()
    for _ in range(KEYS):
        (found,) = checks.differences(held, held.keys, 5_000)
        assert found.subject == label
    assert set(held.asked) == {one.label for one in held.keys}
    held.keys[LEAST + 1] = Checked(label, check_values.of_secret(held.token, label), True)
    assert checks.differences(held, held.keys, 5_000) == ()


def test_what_is_accounted_for_no_more_differs_no_more(held):
    checks = KeyChecks(compared=1)
    held.replace(0)
    assert len(checks.differences(held, held.keys, 5_000)) == 1
    assert checks.differences(held, held.keys[1:], 5_000) == ()


def test_a_key_that_is_missing_is_not_told_as_another(held):
    held.token.destroy(held.keys[0].label)
    assert KeyChecks().differences(held, held.keys, KEYS) == ()
