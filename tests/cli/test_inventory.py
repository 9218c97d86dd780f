"""`capsign inventory` and `capsign drift` against a real adapter, and the page by itself."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from capsign_cli import __main__ as cli
from capsign_cli import ages, output
from capsign_cli.inventory_page import render
from support.adapter_rig import APPROVER, AUDITOR, AdapterRig
from support.inventories import made_up
from support.replica import RunningReplica

STRANGER = "capsign/demo/stranger/1"


@pytest.fixture
def replica(tmp_path):
    running = RunningReplica(tmp_path, AdapterRig(tmp_path / "store"))
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


@pytest.fixture
def run(replica, tmp_path, capsys):
    """Run a command as somebody; exit code, what it wrote, and standard error."""

    def command(*arguments, who: str = AUDITOR):
        name = who.rpartition("spiffe://")[2].replace("/", "-")
        certificate, key = replica.authority.issue(who).write(tmp_path, name)
        options = ["--adapter", replica.address, "--server-name", "localhost"]
        options += ["--ca", tmp_path / "ca.pem", "--cert", certificate, "--key", key]
        with pytest.raises(SystemExit) as ended:
            cli.main([*map(str, arguments), *map(str, options)])
        out = capsys.readouterr()
        return ended.value.code, out.out, out.err

    return command


def test_drift_is_an_exit_code_that_gates_can_use(run, replica):
    code, out, _ = run("drift")
    assert code == 0
    assert "Nothing differs (1 replica)." in out
    replica.rig.token.generate_secret(STRANGER)
    replica.replica.drift.watch.looked_ms = 0
    code, out, _ = run("drift")
    assert code == 1
    assert "unknown-object" in out
    assert STRANGER in out
    code, out, _ = run("drift", "-o", "json")
    told = json.loads(out)
    assert code == 1
    assert [(one["kind"], one["subject"]) for one in told["drift"]] == [
        ("unknown-object", STRANGER)
    ]
    assert told["token_seen"] is True
    assert len(told["replicas"]) == 1
    replica.rig.token.destroy(STRANGER)
    replica.replica.drift.watch.looked_ms = 0
    assert run("drift")[0] == 0


def test_what_was_known_before_is_told_without_a_look(run, replica):
    replica.rig.token.generate_secret(STRANGER)
    assert run("drift", "--known")[0] == 0
    assert run("drift")[0] == 1
    assert run("drift", "--known")[0] == 1


def test_who_may_not_ask_is_refused_and_hears_why(run):
    """A gate must not take that for a difference, nor for none."""
    code, out, err = run("drift", "-o", "json", who=APPROVER)
    assert (code, out) == (3, "")
    error = json.loads(err.splitlines()[-1])["error"]
    assert (error["outcome"], error["reason"]) == ("refused", "ROLE_MISSING")
    code, _, err = run("drift", who=APPROVER)
    assert code == 3
    assert err.startswith("refused: ROLE_MISSING")
    code, _, err = run("drift", "--watch", "--known")
    assert code == 2


def test_a_token_that_gives_no_answer_is_not_one_without_strangers(run, replica):
    replica.rig.token.lose()
    code, out, _ = run("drift")
    assert code == 3
    assert "The token gave no answer" in out
    assert run("drift", "--known")[0] == 0


def test_the_inventory_in_the_terminal_and_as_json(run, replica):
    code, out, _ = run("inventory")
    assert code == 0
    assert "demo/orders" in out
    assert "2 keys" in out
    assert "0 unknown labels" in out
    code, out, _ = run("inventory", "-o", "json")
    told = json.loads(out)
    assert {one["label"] for one in told["objects"]} == set(replica.rig.token.labels())
    assert {one["grant"] for one in told["grants"]} == {
        grant.name for grant in replica.rig.policy.grants
    }
    assert told["drift"] == []


def test_the_page_of_a_real_adapter(run, replica, tmp_path):
    page = tmp_path / "inventory.html"
    code, out, _ = run("inventory", "--html", page)
    assert (code, out) == (0, f"Wrote {page}.\n")
    text = page.read_text()
    for grant in replica.rig.policy.grants:
        assert grant.name in text
    for label in replica.rig.token.labels():
        assert label in text


class Elements(HTMLParser):
    """Collects elements, and whether they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "input", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


@pytest.fixture
def page() -> tuple[str, Elements]:
    text = render(made_up())
    elements = Elements()
    elements.feed(text)
    assert elements.open == []
    return text, elements


def test_the_page_stands_alone(page):
    """Nothing is fetched: no address, no picture, no font; and its own policy forbids it too."""
    text, elements = page
    assert "default-src 'none'" in elements.of("meta")[1]["content"]
    fetching = {"src", "href", "srcset", "action", "data", "poster", "style", "onclick"}
    assert not [attrs for _, attrs in elements.found if fetching & attrs.keys()]
    assert not re.search(r"https?://|url\(|@import", text)


def test_what_an_adapter_says_is_text(page):
    text, elements = page
    assert "<script>alert(1)</script>" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert len(elements.of("script")) == 1


def test_every_table_can_be_sorted_and_filtered(page):
    _, elements = page
    assert len(elements.of("table")) == 5
    assert len(elements.of("th")) == len(elements.of("button"))
    assert all(attrs["scope"] == "col" for attrs in elements.of("th"))
    (search,) = elements.of("input")
    assert search["aria-label"]


def test_what_needs_attention_stands_out(page):
    text, _ = page
    for words in ("unknown-object", "117 %", "quantum-exposed", "not in the policy", "suspended"):
        assert words in text


def test_a_version_that_is_revoked_does_not_pass_for_one_that_signs():
    values = made_up()
    for one in values["versions"]:
        one["revoked"] = "at epoch 7"
    text = render(values)
    assert text.count(">revoked<") == len(values["versions"])
    assert "nothing signs" in text


def test_an_empty_deployment_has_a_page_too():
    names = ("tenants", "keys", "versions", "grants", "objects", "drift")
    nothing: dict[str, list[object]] = {name: [] for name in names}
    text = render({"at": "2026-11-29T21:30:00Z", "epoch": 1, **nothing})
    assert text.count("None.") == 4


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (90, "1 min"), (3600 * 3, "3 h"), (86400 * 3, "3 d")],
)
def test_ages_in_words(seconds, words):
    assert ages.words(seconds) == words


def test_shares_of_a_cryptoperiod():
    assert ages.share(0, 10, 5) is None
    assert ages.share(10, 20, 15) == 50
    assert ages.share(10, 20, 35) == 250
    assert ages.share(10, 20, 5) == 0
    assert ages.words(3 * 365 * 86400) == "3.0 y"
    assert ages.ago(0, 100) == "never"
