"""What is written as TOML is read as it was, by the reader that our processes use."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from capsign_wire import toml_text
from hypothesis import given
from hypothesis import strategies as st

texts = st.text(st.characters(exclude_categories=("Cs",)))
scalars = texts | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)


@given(scalars | st.lists(texts) | st.lists(st.lists(scalars)))
def test_there_and_back(value):
    line = f"x = {toml_text.value(value)}"
    assert "\n" not in line
    assert tomllib.loads(line) == {"x": value}


@given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
def test_every_path_is_text_or_refused(raw):
    """A path with an emoji came out as JSON writes it, which no TOML reader takes; one that is not
    UTF-8 as half a letter.
    """
    path = Path(os.fsdecode(raw))
    try:
        written = toml_text.value(path)
    except UnicodeEncodeError:
        with pytest.raises(UnicodeDecodeError):
            raw.decode()
    else:
        in_a_file = f"x = {written}".encode()
        assert tomllib.loads(in_a_file.decode()) == {"x": str(path)}


def test_what_else_must_not_be_seen():
    assert (
        toml_text.value(("$HOME", "\x7f\x85\u2028\U0001f511"), escape="$")
        == '["\\u0024HOME", "\\u007f\x85\u2028\U0001f511"]'
    )
    with pytest.raises(TypeError):
        toml_text.value({"a": 1})
