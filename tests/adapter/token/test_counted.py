"""Every error of the token is counted under its own label, at its first time too, and reaches its
caller as it was.
"""

from __future__ import annotations

import inspect

import pytest
from capsign_adapter.token.counted import CountedToken
from capsign_adapter.token.interface import (
    KeyExistsError,
    KeyMissingError,
    PinRejectedError,
    Token,
    TokenContestedError,
    TokenError,
    TokenUnavailableError,
)
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import algorithms_pb2
from support.fake_token import FakeToken

ES256 = algorithms_pb2.ALGORITHM_ES256
CALLS = {
    "hmac": ("a", b""),
    "hkdf_hmac": ("a", b"", b""),
    "sign": ("a", ES256, bytes(32)),
    "generate_secret": ("a",),
    "generate_key_pair": ("a", ES256),
    "public_key": ("a",),
    "attributes": ("a",),
    "labels": (),
    "contents": (),
    "destroy": ("a",),
}


class Failing:
    """A token that answers everything with one error."""

    def __init__(self, error: TokenError) -> None:
        self.error = error

    def __getattr__(self, name: str):
        def fail(*_):
            raise self.error

        return fail


def test_the_calls_here_are_those_of_a_token():
    methods = {
        name
        for name, _ in inspect.getmembers(Token, inspect.isfunction)
        if not name.startswith("_")
    }
    assert methods - {"close"} == set(CALLS)


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (TokenUnavailableError("away"), "unavailable"),
        (TokenContestedError("busy"), "unavailable"),
        (PinRejectedError("no"), "pin_rejected"),
        (KeyMissingError("gone"), "key_missing"),
        (KeyExistsError("there"), "key_exists"),
        (TokenError("odd"), "other"),
    ],
    ids=lambda one: one if isinstance(one, str) else type(one).__name__,
)
def test_an_error_is_counted_and_passed_on(method, error, fault):
    metrics = Metrics()
    token = CountedToken(Failing(error), metrics)  # it fails before it would have to be one
    with pytest.raises(TokenError) as caught:
        getattr(token, method)(*CALLS[method])
    assert caught.value is error
    counted = metrics.snapshot()["capsign.token.errors"]
    assert counted[fault,] == 1
    assert sum(counted.values()) == 1


def test_answers_pass_uncounted():
    metrics, inner = Metrics(), FakeToken()
    token = CountedToken(inner, metrics)
    token.generate_secret("root")
    assert token.hmac("root", b"x") == inner.hmac("root", b"x")
    assert (token.labels(), token.name, token.features) == (
        inner.labels(),
        inner.name,
        inner.features,
    )
    assert not any(metrics.snapshot()["capsign.token.errors"].values())
