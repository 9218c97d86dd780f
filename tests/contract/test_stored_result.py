"""What the ledger keeps of an answer: every form that was written is read, and nothing else is."""

from __future__ import annotations

import pytest
from capsign_adapter.store.stored_result import (
    StoredResultError,
    is_sealed,
    made_under,
    of_refusal,
    refusal_of,
    results_of,
    signatures_of,
    signed_by_of,
)
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, failures_pb2, signing_pb2
from hypothesis import given
from hypothesis import strategies as st

FIRST = signing_pb2.SignedBy(
    kid="a" * 43,
    algorithm=algorithms_pb2.ALGORITHM_ED25519,
    version=1,
    custody=algorithms_pb2.CUSTODY_CLASS_ADAPTER_MEMORY,
    policy_digest=b"p" * 32,
    context_digest=b"c" * 32,
)
SECOND = signing_pb2.SignedBy(kid="b" * 43, version=2, attestation=b"x" * 16384)


def of_signatures(signed):
    """The result of one intent: what each signature was made under, and the signature."""
    (result,) = results_of([(under, [value]) for under, value in signed])
    return result


def test_the_bytes_are_those_of_the_page():
    """docs/formats.md, "Stored results": version, then lengths of 16 bits."""
    under = FIRST.SerializeToString(deterministic=True)
    stored = of_signatures([(made_under(FIRST), b"s" * 64)])
    assert stored == b"\x02" + len(under).to_bytes(2, "big") + under + b"\x00\x40" + b"s" * 64


def test_what_an_earlier_release_wrote_is_read():
    """Its signatures are not sealed: the version says so."""
    stored = of_signatures([(made_under(FIRST), b"s" * 64)])
    earlier = b"\x01" + stored[1:]
    assert (is_sealed(stored), is_sealed(earlier)) == (True, False)
    assert signatures_of(earlier) == signatures_of(stored)


@given(
    st.lists(
        st.tuples(st.sampled_from([FIRST, SECOND]), st.binary(max_size=4096)),
        min_size=1,
        max_size=3,
    )
)
def test_signatures_come_back_in_order_each_under_its_own_key(signed):
    stored = of_signatures((made_under(by), value) for by, value in signed)
    found = signatures_of(stored)
    assert [(signed_by_of(under), value) for under, value in found] == signed


def test_the_results_of_many_intents_have_each_its_own_signatures():
    first, second = made_under(FIRST), made_under(SECOND)
    results = results_of([(first, [b"1", b"22"]), (second, [b"333", b""])])
    assert [signatures_of(result) for result in results] == [
        [(first, b"1"), (second, b"333")],
        [(first, b"22"), (second, b"")],
    ]


def test_a_refusal_comes_back():
    failure = FailureError(failures_pb2.REASON_CONTEXT_NOT_ALLOWED, "Not this role.").to_item()
    assert refusal_of(of_refusal(failure)) == failure


@pytest.mark.parametrize("end", range(1, 120, 7))
def test_what_was_cut_short_is_no_result(end):
    stored = of_signatures([(made_under(FIRST), b"s" * 64), (made_under(FIRST), b"t" * 64)])
    with pytest.raises(StoredResultError):
        signatures_of(stored[:-end])


@pytest.mark.parametrize("stored", [b"", b"\x00", b"\x03\x00\x00", b"\x0a\x40" + b"s" * 64])
def test_another_version_is_refused(stored):
    with pytest.raises(StoredResultError):
        signatures_of(stored)
    with pytest.raises(StoredResultError):
        refusal_of(stored)
