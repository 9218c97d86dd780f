"""The inventory's page in a real browser, opened as a file: its headers sort, its field filters,
and it asks for nothing but itself.
"""

from __future__ import annotations

import json

import pytest
from capsign_cli.inventory_page import render
from support.browser import browsing
from support.inventories import made_up

pytestmark = pytest.mark.system

SECTION = (
    "[...document.querySelectorAll('section')]"
    ".find((one) => one.querySelector('h2').firstChild.textContent === {title})"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture
def page(browser, tmp_path):
    file = tmp_path / "inventory.html"
    file.write_text(render(made_up()), encoding="utf-8")
    opened = browser.page().open(file.as_uri())
    yield opened
    assert opened.faults == []
    assert opened.requests == [file.as_uri()]


class Table:
    """A section of the page by its title, as a reader sees it."""

    def __init__(self, page, title: str) -> None:
        self._page = page
        self._section = SECTION.format(title=json.dumps(title))

    def run(self, expression: str):
        return self._page.run(f"((section) => {expression})({self._section})")

    def press(self, head: str) -> None:
        """With the mouse, where the header is."""
        button = (
            "[...section.querySelectorAll('th button')]"
            f".find((one) => one.textContent === {json.dumps(head)})"
        )
        self.run(f"void {button}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        place = self.run(
            "(({x, y, width, height}) => [x + width / 2, y + height / 2])"
            f"({button}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._page.mouse(kind, *place, button="left", clickCount=1)

    def column(self, head: str) -> list[str]:
        """What is shown in the column, from above."""
        return self.run(
            "((place) => [...section.querySelectorAll('tbody tr:not([hidden])')]"
            ".map((row) => row.cells[place].innerText.trim()))"
            "([...section.querySelectorAll('th')].findIndex((one) => one.textContent === "
            f"{json.dumps(head)}))"
        )

    def sorted_by(self) -> list[list[str]]:
        return self.run(
            "[...section.querySelectorAll('th[aria-sort]')]"
            ".map((one) => [one.textContent, one.getAttribute('aria-sort')])"
        )

    def count(self) -> str:
        return self.run("section.querySelector('h2 small').textContent")


def test_a_header_that_is_pressed_sorts_by_numbers_and_again_the_other_way(page):
    keys = Table(page, "Keys")
    before = keys.column("key")
    keys.press("subjects")
    assert keys.column("subjects") == ["0", "3", "3", "3", "41"], "41 comes after 3"
    assert keys.sorted_by() == [["subjects", "ascending"]]
    keys.press("subjects")
    assert keys.column("subjects") == ["41", "3", "3", "3", "0"]
    assert keys.sorted_by() == [["subjects", "descending"]]
    keys.press("key")
    assert keys.column("key") == before
    assert keys.sorted_by() == [["key", "ascending"]]
    versions = Table(page, "Versions")
    versions.press("uses")
    uses = [int(one.replace(",", "")) for one in versions.column("uses")]
    assert uses == sorted(uses)
    assert len(str(uses[0])) < len(str(uses[-1]))


def test_what_is_typed_hides_rows_of_all_tables_and_says_how_many(page):
    keys, grants = Table(page, "Keys"), Table(page, "Grants and subjects")
    every = [keys.count(), grants.count()]
    page.run("document.querySelector('input[type=search]').focus()")
    for letter in "shop rec":
        page.key(letter)
    assert [one.split("\n")[0] for one in keys.column("key")] == ["shop/receipts"]
    assert [keys.count(), grants.count()] == [f"1 of {many}" for many in every]
    page.run("document.querySelector('input[type=search]').select()")
    page.key(" ")
    assert [keys.count(), grants.count()] == every


def test_a_label_that_is_a_script_is_text(page):
    """A stranger chose it."""
    assert page.run("document.querySelectorAll('script').length") == 1
    assert "<script>alert(1)</script>" in page.run("document.body.innerText")
