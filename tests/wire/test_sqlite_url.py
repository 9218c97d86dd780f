"""The path of a store in its URL and back, for every byte that a path may have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from capsign_adapter.store.open import open_store
from capsign_wire import sqlite_url
from hypothesis import given
from hypothesis import strategies as st

NAMES = [
    "feature%2Flogin",
    "a%25b",
    "100%",
    "a#b",
    "a?mode=memory",
    "a b",
    "'; DROP",
    '"',
    "a\nb",
    "\U0001f511",
    os.fsdecode(b"\xff"),
]


@given(st.binary(min_size=1).map(lambda raw: b"/x" + raw.replace(b"\0", b"y")))
def test_there_and_back(raw):
    path = os.fsdecode(raw)
    url = sqlite_url.url(path)
    assert url.isascii()
    assert url.isprintable()
    assert sqlite_url.path_of(url) == path


@pytest.mark.parametrize("name", NAMES)
def test_the_store_lies_where_its_path_says(name, tmp_path):
    """`dev up --dir feature%2Flogin` opened the store of `feature/login`."""
    home = tmp_path / name
    open_store(sqlite_url.url(home / "store.db"), create=True).close()
    assert (home / "store.db").is_file()
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert repr(Path(sqlite_url.path_of(sqlite_url.url(home)))) == repr(home)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:",
        "sqlite:///",
        "sqlite:////",
        "sqlite://host/x",
        "sqlite:x",
        "sqlite:///a#b",
        "sqlite:///a?b",
        "sqlite:///100%",
        "sqlite:///a%zz",
        "sqlite:///a%00b",
        "sqlite:///a\nb",
        "SQLITE:///a",
        "sqlite:///%2F",
        "",
    ],
)
def test_what_names_no_file_is_refused(url):
    """After a `#` nothing was read, and a line's end was dropped: the store would have been another
    one.
    """
    with pytest.raises(ValueError, match="sqlite:///absolute/path"):
        open_store(url)


@pytest.mark.parametrize("path", ["relative", "/", "", "/a\0b"])
def test_what_is_no_absolute_path_has_no_url(path):
    with pytest.raises(ValueError, match="absolute path"):
        sqlite_url.url(path)
