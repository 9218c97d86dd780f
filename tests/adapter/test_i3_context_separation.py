"""I3: different contexts never share an encoding, hence never a subkey."""

from __future__ import annotations

import struct
from dataclasses import fields, replace
from itertools import pairwise

import pytest
from capsign_adapter.decide.context import Context, hkdf_info
from hypothesis import Phase, assume, example, given, settings
from hypothesis import strategies as st

# Few letters and short names, so that fields that run into each other are likely; a few long ones
# for the length prefix.
NAMES = (
    st.text("ab", max_size=4)
    | st.text(max_size=60).filter(lambda text: len(text.encode()) <= 255)
    | st.just("a" * 255)
)
CONTEXTS = st.builds(
    Context,
    tenant=NAMES,
    key=NAMES,
    epoch=st.integers(0, 3) | st.integers(0, 2**64 - 1),
    purpose=NAMES,
    algorithm=st.sampled_from(["Ed25519", "ES256", "HS256", "ML-DSA-65"]),
    protocol=NAMES,
    role=NAMES,
    protocol_version=NAMES,
    transcript=st.just(b"") | st.binary(min_size=32, max_size=32),
)


def decode(encoding):
    """The one context with this encoding. That it exists is the proof: a function with an inverse
    is injective.
    """
    values, at = [], 0
    while at < len(encoding):
        (length,) = struct.unpack_from(">H", encoding, at)
        values.append(encoding[at + 2 : at + 2 + length])
        assert len(values[-1]) == length, "truncated"
        at += 2 + length
    tenant, key, epoch, purpose, algorithm, protocol, role, version, transcript = values
    (number,) = struct.unpack(">Q", epoch)
    texts = (value.decode() for value in (purpose, algorithm, protocol, role, version))
    return Context(tenant.decode(), key.decode(), number, *texts, transcript=transcript)


@given(CONTEXTS)
def test_a_context_can_be_read_back_from_its_encoding(context):
    assert decode(context.encode()) == context


def neighbours(context):
    """Contexts that differ little: a letter moved over the border between two fields, two fields
    swapped.
    """
    names = [
        field.name
        for field in fields(Context)
        if field.name not in {"epoch", "transcript", "algorithm"}
    ]
    for left, right in pairwise(names):
        whole = getattr(context, left) + getattr(context, right)
        for cut in range(len(whole) + 1):
            yield replace(context, **{left: whole[:cut], right: whole[cut:]})
        yield replace(context, **{left: getattr(context, right), right: getattr(context, left)})


def assert_separated(encode, context, other):
    assume(other != context)
    assert encode(context) != encode(other), (context, other)


@given(CONTEXTS, st.data())
def test_no_two_contexts_share_an_encoding(context, data):
    other = data.draw(CONTEXTS | st.sampled_from(list(neighbours(context))))
    assert_separated(Context.encode, context, other)


def without_lengths(context):
    return b"".join(
        value if isinstance(value, bytes) else str(value).encode()
        for value in (getattr(context, field.name) for field in fields(Context))
    )


def with_separators(context):
    return b"/".join(str(getattr(context, field.name)).encode() for field in fields(Context))


@pytest.mark.parametrize("broken", [without_lengths, with_separators])
def test_the_property_catches_an_encoding_that_is_not_injective(broken):
    # A test that cannot fail proves nothing: the same property, on encodings that people do write,
    # finds a collision.
    slashed = Context("a/b", "c", 1, "p", "ES256", "q", "r", "1")

    @settings(phases=[Phase.explicit, Phase.generate])  # the smallest collision is not asked for
    @given(CONTEXTS, st.data())
    @example(slashed, None)
    def property_holds(context, data):
        twin = replace(slashed, tenant="a", key="b/c")
        other = (
            twin
            if data is None
            else data.draw(CONTEXTS | st.sampled_from(list(neighbours(context))))
        )
        assert_separated(broken, context, other)

    with pytest.raises(AssertionError):
        property_holds()


@given(CONTEXTS, CONTEXTS, st.integers(1, 8160), st.integers(1, 8160))
def test_info_of_different_contexts_purposes_or_lengths_differs(
    context, other, length, other_length
):
    assume(
        (context.purpose, context.digest(), length) != (other.purpose, other.digest(), other_length)
    )
    assume(all(len(one.purpose.encode()) <= 246 for one in (context, other)))
    assert hkdf_info(context.purpose, context.digest(), length) != hkdf_info(
        other.purpose, other.digest(), other_length
    )


@given(CONTEXTS, st.binary(min_size=1, max_size=40).filter(lambda value: len(value) != 32))
def test_a_transcript_of_another_length_is_refused(context, transcript):
    with pytest.raises(ValueError, match="32 bytes"):
        replace(context, transcript=transcript).encode()
