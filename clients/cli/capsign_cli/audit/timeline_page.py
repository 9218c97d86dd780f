"""The timeline as one HTML page: what stands out can be read without scripts, all else is embedded
and shown by the page's own.

What the log says is text: it is escaped here, and set as text by the scripts.
"""

from __future__ import annotations

import base64
import json
import zlib
from html import escape

from capsign_cli.audit.timeline_data import GROUPS, MARKS, Timeline, clock, who
from capsign_cli.page import chip, document

SCRIPTS = tuple(
    f"audit/timeline_{name}.js" for name in ("rows", "chart", "table", "details", "main")
)
MAX_LISTED = 500
"""Most rows in the list of what stands out; the newest ones are kept."""

_HEADS = {
    "time": "time, UTC",
    "what": "what",
    "who": "who",
    "on": "key",
    "algorithm": "algorithm",
    "purpose": "purpose",
    "grant": "grant",
    "result": "outcome",
    "stream": "told by",
    "leaf": "leaf",
}
_LANES = {
    "workload": "workload",
    "key": "key",
    "tenant": "tenant",
    "grant": "grant",
    "purpose": "purpose",
    "algorithm": "algorithm",
    "reason": "reason",
    "pod": "pod",
}


def render(timeline: Timeline) -> str:
    """The page."""
    body = "".join(
        (
            _header(timeline),
            _groups(timeline),
            '<noscript><p class="meta">Search, chart and rows need this page\'s script; '
            "what stands out is below.</p></noscript>\n",
            _live(),
            _table(),
            _marks(timeline),
            '<div id="paper"></div>\n',
            _footer(timeline),
            _block("rows", json.dumps(timeline.columns(), separators=(",", ":")).encode()),
            _block("hashes", timeline.hashes()),
            _receipts(timeline),
        )
    )
    attributes = f' data-command="{escape(timeline.command)}"'
    title = f"Signing timeline, {timeline.origin}"
    return document(title, body, ("audit/timeline_page.css",), SCRIPTS, attributes=attributes)


def _block(name: str, data: bytes) -> str:
    """Data that a script reads: raw DEFLATE (RFC 1951), base64. A type that is no script's is not
    executed.
    """
    packer = zlib.compressobj(9, wbits=-15)
    packed = base64.b64encode(packer.compress(data) + packer.flush()).decode()
    return f'<script type="application/octet-stream" id="{name}">{packed}</script>\n'


def _receipts(timeline: Timeline) -> str:
    if timeline.receipts is None:
        return ""
    data = json.dumps(timeline.receipts, separators=(",", ":")).encode()
    return _block("receipts", data)


def _header(timeline: Timeline) -> str:
    facts = [timeline.origin, f"{len(timeline.rows):,} rows", timeline.span(), timeline.filters]
    told = " · ".join(escape(one) for one in facts if one)
    return f'<header><h1>Signing timeline</h1><span class="meta">{told}</span></header>\n'


def _groups(timeline: Timeline) -> str:
    counts = timeline.counts()
    shown = "".join(
        f'<li><button type="button" disabled class="g-{name}" data-group="{name}" '
        f'aria-pressed="true" title="Show or hide; with Shift: these alone">'
        f"<b>{counts[name]:,}</b><span>{escape(title)}</span></button></li>"
        for name, title in GROUPS.items()
        if counts[name]
    )
    return f'<ul class="groups" aria-label="Kinds of rows">{shown}</ul>\n'


def _live() -> str:
    lanes = "".join(f'<option value="{name}">{title}</option>' for name, title in _LANES.items())
    tools = "".join(
        f'<button type="button" class="tool" id="{name}" title="{title}">{text}</button>'
        for name, title, text in (
            ("previous", "What stands out before this (p)", "&lsaquo; previous"),
            ("next", "What stands out after this (n)", "next &rsaquo;"),
            ("in", "Zoom in (+)", "+"),
            ("out", "Zoom out (-)", "&minus;"),
            ("all", "Everything (0)", "all"),
        )
    )
    return (
        '<section class="live only-live" aria-label="Timeline"><div class="bar-of-tools">'
        '<input type="search" id="search" autocomplete="off" spellcheck="false" '
        'placeholder="Search: orders  reason:expired  key:payments  leaf:1203  a hash" '
        'aria-label="Search all rows">'
        f'<label>Lanes by <select id="by">{lanes}</select></label>'
        f'<div class="tools">{tools}</div></div>'
        '<div class="state"><span id="count" role="status"></span><span id="range"></span></div>'
        '<div id="chart" tabindex="0" role="group" aria-label="Chart. Left and right move, plus '
        'and minus zoom, 0 shows everything, n and p go to what stands out.">'
        '<div class="corner" aria-hidden="true">all of it</div>'
        '<canvas id="overview" aria-hidden="true"></canvas><ol id="labels"></ol>'
        '<canvas id="lanes" role="img" aria-label="Rows over time, a lane each; the table below '
        'has the same rows"></canvas></div>'
        f"{_KEYS}</section>\n"
    )


_KEYS = (
    '<details class="keys"><summary>Keys and search</summary><p>'
    "<kbd>/</kbd> search · in the chart <kbd>←</kbd> <kbd>→</kbd> move, <kbd>+</kbd> "
    "<kbd>&minus;</kbd> or the wheel zoom, <kbd>0</kbd> everything, drag moves, a double click "
    "zooms in; a drag in the strip above it chooses a time · <kbd>n</kbd> <kbd>p</kbd> next and "
    "previous of what stands out · in the table <kbd>↑</kbd> <kbd>↓</kbd> <kbd>Page</kbd> "
    "<kbd>Home</kbd> <kbd>End</kbd> · <kbd>Esc</kbd> closes a row.<br>All words must be there. "
    '<code>field:word</code> looks in one field, <code>"two words"</code> are one, six or more '
    "digits of an intent, a commitment or a signature's SHA-256 find its row. The address keeps "
    "what you look at.</p></details>"
)


def _marks(timeline: Timeline) -> str:
    marked = [number for number, row in enumerate(timeline.rows) if row.group in MARKS]
    kept = marked[-MAX_LISTED:]
    note = f" (the newest {len(kept)} of {len(marked):,})" if len(kept) < len(marked) else ""
    lines = "".join(_mark(timeline, number) for number in kept)
    head = f'<div class="head"><h2>What stands out<small>{len(marked):,}{note}</small></h2></div>'
    if not marked:
        text = "No incident, revocation, rollout or administrative act is among these rows."
        return f'<section class="marks">{head}<p class="none">{text}</p></section>\n'
    columns = "".join(
        f'<th scope="col">{one}</th>' for one in ("time, UTC", "what", "on", "by", "leaf", "show")
    )
    return (
        f'<section class="marks">{head}<div class="scroll"><table><thead><tr>{columns}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div></section>\n"
    )


def _mark(timeline: Timeline, number: int) -> str:
    row = timeline.rows[number]
    cells = (
        escape(clock(row.time_ms)),
        chip(row.what, f"g-{row.group}"),
        f"<code>{escape(row.about())}</code>",
        escape(who(row)),
        str(row.leaf),
        f'<button type="button" disabled data-row="{number}" '
        f'aria-label="Show leaf {row.leaf}">Show</button>',
    )
    return f"<tr>{''.join(f'<td>{one}</td>' for one in cells)}</tr>"


def _table() -> str:
    heads = "".join(
        f'<div class="c-{name}" role="columnheader">{title}</div>' for name, title in _HEADS.items()
    )
    return (
        '<div class="below only-live"><section id="grid">'
        '<div id="scroller" tabindex="0" role="grid" aria-label="Rows; arrow keys choose">'
        f'<div class="heads" role="row" aria-rowindex="1">{heads}</div>'
        '<div id="space"></div><div id="lines" role="rowgroup"></div>'
        '<p class="none" id="nothing" hidden>Nothing that matches is in view.</p></div></section>'
        '<section id="details" aria-labelledby="details-title" aria-live="polite" hidden></section>'
        "</div>\n"
    )


def _footer(timeline: Timeline) -> str:
    checkpoint = escape(timeline.checkpoint) or "none was held"
    return (
        f"<footer><details><summary>The checkpoint that was held with {timeline.size:,} "
        f"leaves</summary><pre>{checkpoint}</pre></details>Made by <code>capsign audit timeline"
        f"</code> at {escape(timeline.made_at)}. This page proves nothing by itself: each row "
        "names the leaf and the command that proves it.</footer>\n"
    )
