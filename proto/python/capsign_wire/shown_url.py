"""URLs as they may be shown: in messages, logs and files that others read. Pure.

A URL of a database or of a receiver may hold a password, before its host or in its query.
"""

from __future__ import annotations

import re

HIDDEN = "…"
"""What stands for what is not shown."""

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>\S*)", re.IGNORECASE)
_PAIR = re.compile(
    r"(?P<name>\b(?:ssl)?password\s*=\s*)(?:'(?:\\.|[^'\\])*'|[^\s&,]+)", re.IGNORECASE
)
"""A password as libpq's other form of a connection string has it."""
_NAMED_USERS = frozenset({"postgresql", "postgres"})
"""Where what stands alone before the host is a user's name; elsewhere it may be a token."""


def without_secrets(text: str) -> str:
    """The text, with passwords and queries of the URLs in it replaced by an ellipsis. What is no
    URL stays as it is, but for `password=…`.
    """
    return _PAIR.sub(rf"\g<name>{HIDDEN}", _URL.sub(_shown, text))


def _shown(found: re.Match[str]) -> str:
    scheme, rest = found["scheme"], found["rest"]
    # Up to the last @: a password may have any sign that should have been percent-encoded.
    who, at, where = rest.rpartition("@")
    user, colon, _ = who.partition(":")
    if colon:
        who = f"{user}:{HIDDEN}"
    elif who and scheme.lower() not in _NAMED_USERS:
        who = HIDDEN
    place, question, _ = where.partition("?")
    return f"{scheme}://{who}{at}{place}{question}{HIDDEN if question else ''}"
