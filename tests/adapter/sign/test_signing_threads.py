"""Signatures of a group keep their order and their failures, on one thread or on two."""

from __future__ import annotations

import threading

import pytest
from capsign_adapter.keys.keyring import Signer
from capsign_adapter.sign.signing_threads import WORTH_TWO, Signing, TokenBreaker
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2 as reasons


def signer(
    sign, algorithm=algorithms.ALGORITHM_ED25519, custody=algorithms.CUSTODY_CLASS_ADAPTER_MEMORY
) -> Signer:
    return Signer(sign, b"spki", "kid", custody, algorithm, 1, b"")


class Noting:
    """Signs by turning the input round; notes the threads it was called on, refuses what starts
    with "bad".
    """

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def __call__(self, data: bytes) -> bytes:
        self.threads.add(threading.get_ident())
        if data.startswith(b"bad"):
            raise FailureError(reasons.REASON_TOKEN_UNAVAILABLE)
        return data[::-1]


INPUTS = [b"%d" % number for number in range(WORTH_TWO * 2 + 1)]


def test_many_are_signed_on_two_threads_in_order():
    sign = Noting()
    assert Signing().sign(signer(sign), INPUTS, TokenBreaker()) == [data[::-1] for data in INPUTS]
    assert len(sign.threads) == 2


@pytest.mark.parametrize(
    ("inputs", "extra"),
    [
        (INPUTS[: WORTH_TWO - 1], {}),
        (INPUTS, {"algorithm": algorithms.ALGORITHM_HS256}),
        (INPUTS, {"custody": algorithms.CUSTODY_CLASS_HSM_DIRECT}),
    ],
)
def test_few_or_what_gains_nothing_stays_on_its_thread(inputs, extra):
    sign = Noting()
    assert Signing().sign(signer(sign, **extra), inputs, TokenBreaker()) == [
        data[::-1] for data in inputs
    ]
    assert sign.threads == {threading.get_ident()}


@pytest.mark.parametrize("bad", [0, WORTH_TWO, len(INPUTS) - 1])
def test_a_failure_stays_in_its_place(bad):
    inputs = list(INPUTS)
    inputs[bad] = b"bad"
    results = Signing().sign(signer(Noting()), inputs, TokenBreaker())
    assert [isinstance(result, FailureError) for result in results] == [
        at == bad for at in range(len(inputs))
    ]


def test_a_second_batch_at_the_same_time_does_not_wait_for_the_helper():
    signing, entered, go = Signing(), threading.Event(), threading.Event()

    def slow(data: bytes) -> bytes:
        entered.set()
        assert go.wait(10)
        return data

    first = threading.Thread(target=signing.sign, args=(signer(slow), INPUTS, TokenBreaker()))
    first.start()
    assert entered.wait(10)
    sign = Noting()
    signing.sign(signer(sign), INPUTS, TokenBreaker())
    assert sign.threads == {threading.get_ident()}
    go.set()
    first.join()
