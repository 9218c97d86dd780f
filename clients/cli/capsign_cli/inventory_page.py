"""The inventory as one HTML page, readable without scripts. What the adapter says is text and is
escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from capsign_cli.page import chip, document, tile

NEAR, OVER = 80, 100
"""Shares of a cryptoperiod, percent, from which a version is shown as near its end, and beyond
it.
"""

_STATES = {
    "active": "good",
    "pre-activation": "",
    "suspended": "warn",
    "deactivated": "",
    "compromised": "bad",
    "destroyed": "",
}

Cell = tuple[str, str]
"""HTML of a cell, and what it is sorted by; empty: its text."""


def render(values: Mapping[str, Any]) -> str:
    """The page of `inventory_values.of`, with `drift` of `capsign drift` in it."""
    parts = (
        _header(values),
        _tiles(values),
        _drift(values["drift"]),
        _keys(values),
        _versions(values["versions"]),
        _grants(values["grants"]),
        _objects(values["objects"]),
    )
    footer = (
        "<footer>Made by <code>capsign inventory --html</code>. Ages are those of that moment; "
        "last uses are known to half a minute.</footer>\n"
    )
    title = f"Key inventory, {values['at']}"
    return document(title, "".join(parts) + footer, (), ("inventory_page.js",))


def _header(values: Mapping[str, Any]) -> str:
    tenants = ", ".join(values["tenants"]) or "no tenants"
    return (
        "<header><h1>Key inventory</h1>"
        f'<span class="meta">{escape(tenants)} · {escape(values["at"])} · '
        f"epoch {values['epoch']}</span></header>\n"
    )


def _tiles(values: Mapping[str, Any]) -> str:
    versions = values["versions"]
    overdue = sum((one["used_share"] or 0) >= OVER for one in _active(versions))
    exposed = sum(key["exposed"] for key in values["keys"])
    differs = len(values["drift"])
    subjects = {name for grant in values["grants"] for name in grant["workloads"]}
    tiles = (
        (len(values["keys"]), "keys", ""),
        (len(_active(versions)), "versions that sign", ""),
        (len(values["grants"]), "grants", ""),
        (len(subjects), "subjects", ""),
        (overdue, "beyond their cryptoperiod", "bad" if overdue else "good"),
        (exposed, "exposed after 2035", "warn" if exposed else "good"),
        (differs, "differences", "bad" if differs else "good"),
    )
    shown = "".join(tile(count, what, kind) for count, what, kind in tiles)
    search = (
        '<input type="search" hidden placeholder="Filter all tables" '
        'aria-label="Filter all tables">'
    )
    return f'<div class="tiles">{shown}</div>\n{search}\n'


def _active(versions: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for one in versions if one["state"] == "active" and not one["revoked"]]


def _drift(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    cells = [
        (
            (chip(one["kind"], "bad"), ""),
            (f"<code>{escape(one['subject'])}</code>", ""),
            (escape(one["aspect"]), ""),
            (escape(one["expected"]), ""),
            (f"<b>{escape(one['found'])}</b>", ""),
            (escape(one["since"]), ""),
        )
        for one in rows
    ]
    heads = ("what", "subject", "aspect", "expected", "found", "since")
    return _section("What differs", heads, cells, "attention")


def _keys(values: Mapping[str, Any]) -> str:
    cells = []
    for key in values["keys"]:
        newest = next(
            (one for one in _active(values["versions"]) if one["key"] == key["key"]), None
        )
        cells.append(
            (
                (f"<b>{escape(key['key'])}</b>{_policy_note(key)}", key["key"]),
                (escape(key["kind"]), ""),
                (_chips(key["algorithms"]), ""),
                _signs(newest),
                _age(newest),
                (escape(newest["last_used"]) if newest else "—", _sortable_use(newest)),
                (_rotation(key), ""),
                (_horizon(key), key["horizon_year"]),
                (str(key["subjects"]), ""),
            )
        )
    heads = (
        "key",
        "kind",
        "algorithms",
        "signs",
        "cryptoperiod",
        "last used",
        "rotation",
        "horizon",
        "subjects",
    )
    return _section("Keys", heads, cells)


def _policy_note(key: Mapping[str, Any]) -> str:
    return "" if key["in_policy"] else f"<br>{chip('not in the policy', 'warn')}"


def _signs(newest: Mapping[str, Any] | None) -> Cell:
    if newest is None:
        return chip("nothing signs", "warn"), "0"
    text = f'version {newest["version"]}<br><span class="soft small">{escape(newest["custody"])}'
    return f"{text}</span>", str(newest["version"])


def _age(version: Mapping[str, Any] | None) -> Cell:
    if version is None or version["used_share"] is None:
        return "—", "-1"
    used = version["used_share"]
    kind = "bad" if used >= OVER else "warn" if used >= NEAR else ""
    width = min(used, 100)
    text = f'{escape(version["age"])}, <span class="soft">{used} %</span>'
    # a picture, since the page's own policy takes no style on an element
    bar = f'<svg class="bar {kind}" viewBox="0 0 100 6" preserveAspectRatio="none" role="img"'
    bar += f' aria-label="{used} %"><rect width="{width}" height="6"/></svg>'
    return text + bar, str(used)


def _rotation(key: Mapping[str, Any]) -> str:
    every = key["rotates_every"]
    return f"every {escape(every)}" if every else '<span class="soft">by hand</span>'


def _horizon(key: Mapping[str, Any]) -> str:
    if not key["horizon"]:
        return '<span class="soft">—</span>'
    text = f"until {escape(key['horizon_year'])}"
    return f"{text}<br>{chip('quantum-exposed', 'warn')}" if key["exposed"] else text


def _sortable_use(version: Mapping[str, Any] | None) -> str:
    return (version["last_used_at"] if version else "") or "0"


def _versions(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        (
            (
                f"<b>{escape(one['key'])}</b> / {one['version']}",
                f"{one['key']}/{one['version']:06}",
            ),
            (_state(one), ""),
            (escape(one["custody"]), ""),
            (_chips(one["algorithms"]), ""),
            (_time(one["created_at"]), ""),
            (_time(one["activated_at"]), ""),
            _age(one),
            (escape(one["last_used"]), _sortable_use(one)),
            (f"{one['uses']:,}", str(one["uses"])),
            (f'<code class="whole">{escape(one["check_value"])}</code>', ""),
        )
        for one in rows
    ]
    heads = (
        "version",
        "state",
        "custody",
        "algorithms",
        "made",
        "activated",
        "cryptoperiod",
        "last used",
        "uses",
        "check value",
    )
    return _section("Versions", heads, cells)


def _state(version: Mapping[str, Any]) -> str:
    shown = chip(version["state"], _STATES.get(version["state"], ""))
    return f"{shown}<br>{chip('revoked', 'bad')}" if version["revoked"] else shown


def _grants(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        (
            (f"<b>{escape(one['grant'])}</b>", ""),
            (escape(one["key"]), ""),
            (escape(one["purpose"]), ""),
            (_chips(one["algorithms"]), ""),
            (_chips(one["protocols"]), ""),
            (escape(one["ttl"]), ""),
            (escape(one["min_custody"]), ""),
            (_subjects(one["workloads"]), str(len(one["workloads"]))),
        )
        for one in rows
    ]
    heads = ("grant", "key", "purpose", "algorithms", "protocols", "handles", "custody", "subjects")
    return _section("Grants and subjects", heads, cells)


def _subjects(names: Sequence[str]) -> str:
    listed = "".join(f"<li><code>{escape(name)}</code></li>" for name in names)
    if len(names) == 1:
        return f"<code>{escape(names[0])}</code>"
    return f"<details><summary>{len(names)} subjects</summary><ul>{listed}</ul></details>"


def _objects(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        (
            (f"<code>{escape(one['label'])}</code>", ""),
            (_chips(one["kinds"]), ""),
            (escape(one["purpose"]) or "—", ""),
            (chip("known", "good") if one["known"] else chip("unknown", "bad"), ""),
        )
        for one in sorted(rows, key=lambda one: one["known"])
    ]
    return _section("Objects in the token", ("label", "classes", "for", "accounted for"), cells)


def _time(text: str) -> str:
    return f'<span class="small">{escape(text[:10])}</span>' if text else "—"


def _chips(texts: Iterable[str]) -> str:
    return f'<span class="chips">{"".join(map(chip, texts))}</span>'


def _section(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]], kind: str = ""
) -> str:
    head = f'<div class="head"><h2>{escape(title)}<small>{len(rows)}</small></h2></div>'
    if not rows:
        return f'<section class="{kind}">{head}<p class="none">None.</p></section>\n'
    columns = "".join(f'<th scope="col"><button>{escape(one)}</button></th>' for one in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<section class="{kind}" data-count="{len(rows)}">{head}<div class="scroll"><table>'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div></section>\n"
    )


def _cell(cell: Cell) -> str:
    text, sort = cell
    return f'<td data-sort="{escape(sort)}">{text}</td>' if sort else f"<td>{text}</td>"
