from __future__ import annotations

from fractions import Fraction

import pytest
from capsign_injector import quantity
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("10m", Fraction(1, 100)),
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("1Ki", 1024),
        ("1k", 1000),
        ("1.5Gi", 1610612736),
        ("1e3", 1000),
        ("1E-1", Fraction(1, 10)),
        ("128974848000m", 128974848),
        ("0", 0),
    ],
)
def test_values(text, value):
    assert quantity.parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "-1",
        "+1",
        "1K",
        "1mi",
        "0x1",
        "1e",
        "1e999",
        "1e3Ki",
        "1_0",
        "inf",
        "1" * 40,
        "1Ei",
        "1\n",
    ],
)
def test_no_values(text):
    with pytest.raises(quantity.NotAQuantityError):
        quantity.parse(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1024Mi", "1Gi"),
        ("1536Mi", "1536Mi"),
        ("128M", "125000Ki"),
        ("1000", "1k"),
        ("1023", "1023"),
        ("0", "0"),
    ],
)
def test_memory(text, canonical):
    assert quantity.memory(quantity.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("0.1", "100m"), ("1000m", "1"), ("1500m", "1500m"), ("1u", "1m"), ("2", "2")],
)
def test_cpu(text, canonical):
    assert quantity.cpu(quantity.parse(text)) == canonical


@given(st.integers(0, 10**14))
def test_nothing_is_lost(size):
    assert quantity.parse(quantity.memory(size)) == size
    assert quantity.parse(quantity.cpu(Fraction(size, 1000))) == Fraction(size, 1000)
