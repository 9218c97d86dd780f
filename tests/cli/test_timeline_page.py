"""The page of `capsign audit timeline --html` in a real browser, opened as a file and offline."""

from __future__ import annotations

import json
import re

import pytest
from capsign_cli.audit.timeline import make
from capsign_cli.audit.timeline_data import MARKS
from capsign_cli.audit.timeline_page import render
from capsign_evidence.archive.reading import events
from capsign_evidence.checkpoint import sign_checkpoint
from capsign_evidence.note import VerifierKey
from capsign_evidence.proofs import TreeReader
from capsign_evidence.receipt import verify_receipt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.browser import browsing
from support.evidence_at_rest import T0, MemoryArchive, signed
from support.timelines import HOSTILE, MISUSE_AT, WORKLOADS, made_up

pytestmark = pytest.mark.system

MANY = 100_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture(scope="module")
def made():
    return made_up(MANY)


@pytest.fixture(scope="module")
def file(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "timeline.html"
    path.write_text(render(made), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def opened(browser, file):
    """The page, which is slow to open again and again; it asks for nothing but its own file, and
    has no fault to the end.
    """
    page = browser.page().open(file.as_uri())
    yield page
    assert page.faults == []
    assert page.requests == [file.as_uri()]


@pytest.fixture
def page(opened):
    """The page as if it had been opened now."""
    opened.run(
        "(async () => { $('count').textContent = ''; history.replaceState(null, '', '#');"
        " dispatchEvent(new Event('hashchange')); await until(() => $('count').textContent); })()"
    )
    return opened


def shown(page):
    """How many rows the page says are in view."""
    return int(re.match(r"[\d,]+", page.run("$('count').textContent")).group().replace(",", ""))


def search(page, text):
    """Type into the search field, and wait until what it found is shown."""
    page.run(
        "(async () => { const old = $('count').textContent; $('count').textContent = '';"
        f" $('search').value = {json.dumps(text)}; $('search').dispatchEvent(new Event('input'));"
        " await until(() => $('count').textContent); })()"
    )
    return shown(page)


def first_cells(page):
    return page.run("[...document.querySelector('.line').children].map((one) => one.textContent)")


def test_a_hundred_thousand_rows_are_there_and_few_are_elements(page, made, file):
    assert shown(page) == len(made.rows) > MANY
    assert page.run("document.querySelectorAll('.line').length") < 40
    assert page.run("$('scroller').getAttribute('aria-rowcount')") == str(len(made.rows) + 1)
    assert file.stat().st_size < 16 << 20


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("payments webhooks", lambda row: "payments" in row.texts.get("workload", "")
            and "webhooks" in row.texts.get("key", "")),
        ("reason:rate_limited", lambda row: row.texts.get("reason") == "RATE_LIMITED"),
        ('workload:"ledger-api" purpose:access', lambda row: row.texts.get("purpose")
            and "ledger-api" in row.texts["workload"]),
        ("no such words", lambda _: False),
    ],
)  # fmt: skip
def test_a_search_finds_exactly_the_rows_that_have_its_words(page, made, text, fits):
    expected = sum(bool(fits(row)) for row in made.rows)
    assert search(page, text) == expected
    assert search(page, "") == len(made.rows)


def test_a_hash_and_a_leaf_find_their_row(page, made):
    row = next(row for row in made.rows[700:] if row.group == "signed")
    for text in (row.commitment.hex(), row.intent.hex()[:13], row.signature_hash.hex()[:21]):
        assert search(page, text) == 1
        assert first_cells(page)[-1] == str(row.leaf)
    assert search(page, f"leaf:{row.leaf}") == 1


def test_groups_are_hidden_and_shown_by_their_buttons(page, made):
    counts = made.counts()
    page.run("document.querySelector('[data-group=signed]').click()")
    page.run("until(() => !$('count').textContent.startsWith('1'))")
    assert shown(page) == len(made.rows) - counts["signed"]
    pressed = "document.querySelector('[data-group=signed]').getAttribute('aria-pressed')"
    assert page.run(pressed) == "false"


def test_the_wheel_zooms_around_the_pointer_and_a_drag_moves(page, made):
    box = page.run(
        "(() => { const b = $('lanes').getBoundingClientRect(); return [b.x, b.y, b.width]; })()"
    )
    first, last = made.rows[0].time_ms, made.rows[-1].time_ms
    share = 0.01 + 0.98 * (MISUSE_AT + 60_000 - first) / (last - first)  # both ends have an edge
    x, y = box[0] + box[2] * share, box[1] + 60
    before = shown(page)
    for _ in range(12):
        page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-200)
    page.run(f"until(() => parseInt($('count').textContent.replace(/,/g, '')) < {before // 10})")
    near = shown(page)
    assert 0 < near < before // 10
    inside = page.run("[...document.querySelectorAll('.line')].map((one) => one.textContent)")
    assert any("2026-11-29 03:0" in one for one in inside)
    at = page.run("$('range').textContent")
    page.mouse("mousePressed", x, y, button="left", clickCount=1)
    page.mouse("mouseMoved", x - 200, y, button="left")
    page.mouse("mouseReleased", x - 200, y, button="left", clickCount=1)
    page.run(f"until(() => $('range').textContent !== {json.dumps(at)})")


def test_keys_do_what_the_mouse_does(page, made):
    page.run("$('chart').focus()")
    for key in ("+", "+", "ArrowLeft", "-"):
        at = page.run("$('range').textContent")
        page.key(key)
        page.run(f"until(() => $('range').textContent !== {json.dumps(at)})")
    page.key("0")
    page.run("until(() => !$('count').textContent.includes('at any time'))")
    assert shown(page) == len(made.rows)
    page.run("$('scroller').focus()")
    page.key("End")
    page.run("until(() => !$('details').hidden)")
    chosen = "document.querySelector('[aria-selected=true]')"
    assert page.run(f"{chosen}.getAttribute('aria-rowindex')") == str(len(made.rows) + 1)
    named = "$('scroller').getAttribute('aria-activedescendant')"
    assert page.run(named) == page.run(f"{chosen}.id")
    page.key("Home")
    page.run(f"until(() => {chosen}.getAttribute('aria-rowindex') === '2')")
    page.key("Escape")
    page.run("until(() => $('details').hidden)")


def test_what_stands_out_is_gone_through(page, made):
    marked = [row for row in made.rows if row.group in MARKS]
    times = []
    page.run("$('chart').focus()")
    page.key("0")
    for _ in range(3):
        page.key("p")
        page.run("until(() => !$('details').hidden)")
        times.append(page.run("$('details').textContent"))
    assert all(any(row.what in text for row in marked) for text in times)


def test_a_row_names_its_proof(page, made):
    row = next(row for row in made.rows if row.group == "signed")
    search(page, f"leaf:{row.leaf}")
    page.run("document.querySelector('.line').click()")
    page.run("until(() => !$('details').hidden)")
    told = page.run("$('details').textContent")
    for words in (row.commitment.hex(), row.signature_hash.hex(), WORKLOADS[0][:20]):
        assert words in told
    assert f"capsign audit receipt copy.db {row.leaf}" in told


def test_what_a_log_says_is_text(page):
    search(page, "onerror")
    assert HOSTILE in first_cells(page)[1]
    assert page.run("document.querySelectorAll('img').length") == 0
    assert page.run("document.title").startswith("Signing timeline")


def test_the_dark_is_dark_and_paper_is_white(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    page.show_as("dark")
    assert page.run(f"{ground}.match(/\\d+/g).every((one) => one < 60)")
    page.show_as("dark", "print")
    page.run(f"until(() => {ground} === 'rgb(255, 255, 255)')")
    page.show_as("light")


def test_it_is_printed_with_the_rows_in_view(page, made):
    row = next(row for row in made.rows if row.group == "signed")
    search(page, f"leaf:{row.leaf}")
    document = page.pdf()
    assert document.startswith(b"%PDF-")
    assert len(document) > 10_000
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("document.querySelectorAll('#paper tbody tr').length") == 1
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("document.querySelectorAll('#paper tr').length") == 0


def test_the_address_brings_back_what_was_looked_at(browser, file, page):
    page.run("$('chart').focus()")
    found = search(page, "refunds")
    page.key("+")
    page.run("until(() => location.hash.includes('t='))")
    range_ = page.run("$('range').textContent")
    again = browser.page().open(file.as_uri() + page.run("location.hash"))
    again.run("until(() => $('range').textContent)")
    assert again.run("$('range').textContent") == range_
    assert again.run("$('search').value") == "refunds"
    assert 0 < shown(again) <= found
    assert again.faults == []


def test_entry_and_receipt_of_a_row_are_saved_and_verify(browser, tmp_path):
    """What the page puts together is byte for byte a tlog-proof of the log that it is of."""
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    key = VerifierKey("log.capsign.test/main", private.public_key().public_bytes_raw())
    archive = MemoryArchive([signed(number, T0 + number * 1000) for number in range(700)])
    root = TreeReader(archive.hashes, 700).root()
    archive.note = sign_checkpoint(700, root, key, private.sign)
    file = tmp_path / "timeline.html"
    file.write_text(render(make(archive, events(archive), 1000, "", "copy.db")), encoding="utf-8")
    page = browser.page().open(file.as_uri() + "#q=leaf:513")
    page.run("until(() => document.querySelector('.line'))")
    page.run("document.querySelector('.line').click()")
    page.run("until(() => document.querySelector('.proof .buttons'))")
    click = "for (const one of document.querySelectorAll('.proof .buttons button')) one.click()"
    browser.saving(tmp_path, lambda: page.run(f"(() => {{ {click}; }})()"), files=2)
    entry, proof = (tmp_path / f"513.{end}" for end in ("entry", "tlog-proof"))
    assert verify_receipt(proof.read_bytes(), entry.read_bytes(), key)[0] == 513
    assert entry.read_bytes() == archive.held[513]
    assert page.faults == []
