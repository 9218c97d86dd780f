"""`capsign policy`: what a review and a pipeline see, of files and of a running adapter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from capsign_cli import __main__ as cli
from capsign_cli import output
from support.adapter_rig import AUDITOR, OPERATOR, POLICY, AdapterRig
from support.replica import RunningReplica

APPROVER = "spiffe://capsign.test/approver/pia"
PEOPLE = POLICY.replace("roles:\n", f'roles:\n  - {{role: approver, identities: ["{APPROVER}"]}}\n')
STRONGER = PEOPLE.replace("clock_skew: 30s", "clock_skew: 20s")
WEAKER = PEOPLE.replace("clock_skew: 30s", "clock_skew: 40s")
DOCUMENTS = {"same": PEOPLE, "stronger": STRONGER, "weaker": WEAKER, "none": "version: 2\n"}


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


@pytest.fixture
def files(tmp_path):
    for name, text in DOCUMENTS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def run(capsys):
    def call(*arguments) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["policy", *map(str, arguments)])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call


@pytest.fixture
def adapter(tmp_path):
    """Options that name a running adapter, as somebody."""
    place = tmp_path / "adapter"
    place.mkdir()
    running = RunningReplica(place, AdapterRig(place / "store", PEOPLE))

    def options(who: str) -> list[object]:
        certificate, key = running.authority.issue(who).write(place, who.rpartition("/")[2])
        ca = place / "ca.pem"
        named = ["--adapter", running.address, "--ca", ca, "--server-name", "localhost"]
        return [*named, "--cert", certificate, "--key", key]

    yield options
    running.stop()


CODES = [("same", 0), ("stronger", 1), ("weaker", 3), ("none", 2)]


@pytest.mark.parametrize(("name", "code"), CODES)
def test_two_files_are_compared_with_no_adapter(run, files, name, code):
    ended, out, _ = run("diff", files / "same", files / name)
    assert ended == code
    assert (f"{name}  " in out) == (code in {1, 3})


@pytest.mark.parametrize(("name", "code"), CODES)
@pytest.mark.parametrize("command", ["diff", "plan"])
def test_a_file_is_compared_with_what_is_in_force(run, files, adapter, command, name, code):
    assert run(command, files / name, *adapter(AUDITOR))[0] == code


def test_json_has_each_change(run, files):
    ended, out, _ = run("diff", files / "same", files / "weaker", "-o", "json")
    assert ended == 3
    assert json.loads(out) == {
        "changes": [
            {
                "strength": "weaker",
                "subject": "limits",
                "words": "the clock skew that is forgiven from 30s to 40s",
            }
        ],
        "summary": "1 change, which weakens or broadens: somebody else has to approve.",
        "weakens": True,
    }
    _, out, _ = run("diff", files / "same", files / "stronger", "-o", "json")
    assert json.loads(out)["weakens"] is False


def test_a_running_adapter_says_it_in_the_words_of_two_files(run, files, adapter):
    several = WEAKER.replace("message_max: 65536", "message_max: 9")
    (files / "several").write_text(several)
    (files / "two").write_text(several.replace("40s", "20s"))
    for name in ("same", "stronger", "weaker", "several", "two"):
        told = [
            json.loads(run("diff", *each, "-o", "json")[1])
            for each in ([files / "same", files / name], [files / name, *adapter(AUDITOR)])
        ]
        assert told[0] == told[1], name


@pytest.mark.parametrize("arguments", [["diff"], ["plan"], ["diff", "same", "same", "same"]])
def test_wrong_use_is_none_of_the_answers(run, files, arguments):
    assert run(arguments[0], *(files / name for name in arguments[1:]))[0] == 2


def test_who_may_not_ask_hears_no_answer_that_means_a_change(run, files, adapter):
    app = "spiffe://capsign.test/ns/demo/sa/app"
    ended, _, said = run("diff", files / "same", *adapter(app))
    assert ended == 2
    assert "ROLE_MISSING" in said


def test_nobody_there_is_unavailable(run, files, adapter):
    options = [*adapter(AUDITOR)]
    options[1] = "127.0.0.1:1"
    assert run("diff", files / "same", *options)[0] == 4


def test_lint_says_what_is_unwise_and_refuses_what_is_no_policy(run, files):
    ended, out, _ = run("lint", files / "same")
    assert ended == 0
    assert "It has no rate." in out
    ended, _, said = run("lint", files / "none")
    assert ended == 2
    assert "version" in said


def test_apply_history_and_show(run, files, adapter):
    operator = adapter(OPERATOR)
    ended, _, said = run("apply", files / "stronger", "-o", "json", *operator)
    assert ended == 2
    assert "NOT_CONFIRMED" in said
    ended, out, _ = run("apply", files / "stronger", "--yes", "-o", "json", *operator)
    assert ended == 0
    applied = json.loads(out)
    assert (applied["version"], applied["state"], applied["proposal"]) == (2, "in-force", "")
    ended, out, _ = run("apply", files / "weaker", "--yes", "-o", "json", *operator)
    waiting = json.loads(out)
    assert waiting["state"] == "proposed"
    assert f"capsign approvals approve {waiting['proposal']}" in waiting["note"]
    ended, out, _ = run("history", "-o", "json", *operator)
    states = [row["state"] for row in json.loads(out)["versions"]]
    assert states == ["proposed", "in-force", "superseded"]
    assert run("show", *operator)[1] == STRONGER
    assert run("show", "1", *operator)[1] == PEOPLE
    assert run("show", "9", *operator)[0] == 1
    assert run("diff", "--to", "3", *operator)[0] == 3
