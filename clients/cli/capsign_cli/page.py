"""A page of HTML that stands alone: everything in it, nothing fetched, in light and dark and on
paper.

Its policy (Content-Security-Policy) lets only its own style and script run, by their digests.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files

BASE_STYLE = "page.css"


def document(
    title: str, body: str, styles: Sequence[str], scripts: Sequence[str], *, attributes: str = ""
) -> str:
    """The document. `body` is HTML; styles and scripts are names of files below capsign_cli, and
    the style that all pages share comes first. `attributes` are those of the body.
    """
    style = "".join(map(_file, (BASE_STYLE, *styles)))
    script = "".join(map(_file, scripts))
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>{style}</style>\n</head>\n<body{attributes}>\n<main>\n{body}</main>\n"
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def chip(text: str, kind: str = "") -> str:
    """A word with a ground of its own."""
    return f'<span class="chip {kind}">{escape(text)}</span>'


def tile(number: int, what: str, kind: str = "") -> str:
    """A number, and what it counts."""
    return f'<div class="tile {kind}"><b>{number:,}</b><span>{escape(what)}</span></div>'


def _file(name: str) -> str:
    return files("capsign_cli").joinpath(*name.split("/")).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
