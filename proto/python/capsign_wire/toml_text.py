"""Values as TOML, for whoever writes settings that `settings.load` reads. Pure.

JSON's strings are nearly TOML's, and the difference is a trap: a letter above U+FFFF is two escapes
in JSON and an error in TOML, and TOML wants DEL escaped.
"""

from __future__ import annotations

from pathlib import PurePath

_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def value(given: object, escape: str = "") -> str:
    """A text, a path, a number, a truth value, or a list of these. Letters in `escape` are written
    as escapes.

    Raises ValueError for text that is not Unicode, such as a path of odd bytes: TOML cannot hold
    it.
    """
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, int | float):
        return repr(given)
    if isinstance(given, list | tuple):
        return f"[{', '.join(value(one, escape) for one in given)}]"
    if isinstance(given, str | PurePath):
        return string(str(given), escape)
    raise TypeError(f"a setting cannot be of type {type(given).__name__}")


def string(text: str, escape: str = "") -> str:
    """A basic string of TOML 1.0. Raises ValueError for text that is not Unicode."""
    text.encode()
    return '"' + "".join(_SHORT.get(one) or _escaped(one, escape) for one in text) + '"'


def _escaped(one: str, escape: str) -> str:
    return f"\\u{ord(one):04x}" if one < " " or one == "\x7f" or one in escape else one
