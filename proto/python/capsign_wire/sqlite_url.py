"""The file of a SQLite store as `store.url` names it, one function for each direction. Pure.

The URL is `sqlite://` and the absolute path, percent-encoded: `%2F` in it is a slash, so a name
with `%` in it is never put there as it is.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

_FORM = re.compile(r"sqlite://(?P<path>/[^?#\x00-\x1f\x7f]+)")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def url(path: str | os.PathLike[str]) -> str:
    """The URL of the file at this absolute path."""
    raw = os.fsencode(path)
    if not raw.startswith(b"/") or b"\0" in raw or raw == b"/":
        raise ValueError("a store is at an absolute path")
    return "sqlite://" + quote_from_bytes(raw, safe="/")


def path_of(given: str) -> str:
    """The path in such a URL. Raises ValueError for anything else, a `?`, a `#` or a `%` that
    begins no byte included.
    """
    found = _FORM.fullmatch(given)
    raw = (
        unquote_to_bytes(os.fsencode(found["path"]))
        if found and not _BROKEN_ESCAPE.search(given)
        else b""
    )
    if not raw.strip(b"/") or b"\0" in raw:
        raise ValueError(
            "A SQLite store's URL is sqlite:///absolute/path, with %25 for %, %3F for ? "
            "and %23 for #."
        )
    return os.fsdecode(raw)
