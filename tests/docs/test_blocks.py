"""Every block of commands on every page is run by a test, or says why it is not."""

from __future__ import annotations

import re

import pytest
from support.page_ports import PagePorts
from support.pages import CLUSTER, COMMANDS, DATA, ROOT, blocks, indented, pages
from support.pages import _blocks as parsed

BLOCKS = [block for page in pages() for block in blocks(page)]


def test_there_are_blocks_and_the_pages_of_the_cluster_are_here():
    assert sum(block.here for block in BLOCKS) >= 15
    for page in CLUSTER:
        assert (ROOT / page).is_file()
        assert sum(block.on_cluster for block in blocks(page)) >= 4


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.at)
def test_a_block_says_what_it_is(block):
    assert block.language in COMMANDS | DATA, (
        f"{block.at}: nobody knows how to run a block of {block.language!r}"
    )
    assert not block.words or block.on_cluster, (
        f"{block.at}: {' '.join(block.words)!r} behind the language means nothing here"
    )


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.executable], ids=lambda block: block.at
)
def test_commands_are_run_or_there_is_a_reason(block):
    run = block.here or block.on_cluster
    assert run or block.reason, (
        f"{block.at} is run by no test: have it run, or write `<!-- not run: why -->` on "
        f"the line before it"
    )
    assert not (run and block.reason), f"{block.at} is run, and says that it is not"
    assert run or len(block.reason) >= 15, f"{block.at}: {block.reason!r} is no reason"
    assert not run or block.language in COMMANDS, f"{block.at} is run: say in which language it is"


@pytest.mark.parametrize("page", pages())
def test_commands_are_in_fences(page):
    """What is a block by its indentation alone has no language, and nobody runs it."""
    assert not indented(page)


def test_no_fence_is_left_open():
    for page in pages():
        text = (ROOT / page).read_text(encoding="utf-8")
        fences = sum(line.lstrip().startswith("```") for line in text.splitlines())
        assert fences == 2 * len(blocks(page)), page


def test_what_is_no_block_of_its_language_is_seen():
    (plain,) = parsed("x.md", "```\n$ capsign handles\n```\n")
    assert plain.executable
    assert not plain.reason
    (picture,) = parsed("x.md", "```\napp -> agent\n```\n")
    assert not picture.executable
    (marked,) = parsed("x.md", "text\n\n<!-- not run: it needs a ceremony -->\n```sh\nrm x\n```\n")
    assert (marked.line, marked.reason, marked.here) == (4, "it needs a ceremony", False)
    (indented,) = parsed("x.md", "* a list\n  ```sh\n  capsign handles\n  ```\n")
    assert indented.here


def test_every_port_that_is_listened_on_is_moved():
    """Two runs of the tests on one machine met on 17441, and one of them failed."""
    ports = PagePorts()
    named = re.compile(r"(?:127\.0\.0\.1:|\s)(1[0-9]{4}|1[0-9]{3}\$number)\b")
    run = [block for block in BLOCKS if block.here or block.on_cluster]
    text = "\n".join(block.text for block in run)
    assert len(named.findall(text)) >= 6
    assert not named.findall(ports.moved(text))
    assert ports.moved("127.0.0.1:17441") == ports.moved("127.0.0.1:1744$number").replace(
        "$number", "1"
    )
