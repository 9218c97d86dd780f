"""Somebody with the PIN makes, replaces and destroys objects in a real SoftHSM, with another client
of PKCS#11; the adapter names them, also if it is killed on the way.
"""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from capsign_adapter.model.drift import DriftRow
from capsign_cli import __main__ as cli
from capsign_evidence.drift_leaf import Drifted, DriftKind
from capsign_evidence.leaf_kinds import Act
from support import needs
from support.dev import Dev
from support.drifting_adapter import STEPS
from support.key_calls import eventually

pytestmark = pytest.mark.system

MODULE = "support.drifting_adapter"


class Stranger:
    """Another client of the token."""

    def __init__(self, dev: Dev) -> None:
        token = Path(dev.about["token"]["conf"]).parent
        self.environment = {"SOFTHSM2_CONF": dev.about["token"]["conf"], "PATH": "/usr/bin:/bin"}
        pin = (token / "capsign.pin").read_text().strip()
        self.command = ["pkcs11-tool", "--module", str(needs.softhsm()), "--token-label", "capsign"]
        self.command += ["--login", "--pin", pin]

    def _run(self, *arguments: str) -> None:
        subprocess.run(
            [*self.command, *arguments],
            check=True,
            capture_output=True,
            env=self.environment,
            timeout=60,
        )

    def makes(self, label: str, *more: str) -> None:
        self._run("--keygen", "--key-type", "GENERIC:32", "--label", label, *more)

    def destroys(self, label: str) -> None:
        self._run("--delete-object", "--type", "secrkey", "--label", label)


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    running = Dev(tmp_path_factory.mktemp("dev") / "d")
    yield running
    running.close()


def rows(dev: Dev) -> tuple[DriftRow, ...]:
    store = dev.opened_store()
    try:
        return store.drift().rows
    finally:
        store.close()


def names(dev: Dev) -> set[tuple[DriftKind, str]]:
    return {(row.difference.kind, row.difference.subject) for row in rows(dev)}


def told(dev: Dev, subject: str) -> list[Act]:
    """What the log says of it."""
    return [
        entry.act
        for entry in dev.entries()
        if isinstance(entry, Drifted) and entry.subject == subject
    ]


def reconciled(dev: Dev, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a responder finds in the store about the token."""
    with pytest.raises(SystemExit):
        cli.main(["audit", "reconcile", dev.about["store"], "-o", "json"])
    incidents = json.loads(capsys.readouterr().out)["incidents"]
    return [one["incident"] for one in incidents if one["incident"] == "unknown-key-object"]


@pytest.mark.parametrize("step", STEPS)
def test_a_replica_that_is_killed_between_finding_and_telling(dev, step, capsys):
    """Whatever the step: there is no row without an entry, the next life tells what the last one
    did not, and nothing is told twice.
    """
    stranger, label = Stranger(dev), f"capsign/demo/{step}/1"
    dying = dev.replace_adapter(module=MODULE, CAPSIGN_TEST_CRASH=step)
    stranger.makes(label)
    assert dying.wait(timeout=60) == -signal.SIGKILL
    assert len(rows(dev)) == len(told(dev, label)) == int(step == "settled")
    dev.replace_adapter(module=MODULE)
    assert eventually(lambda: names(dev) == {(DriftKind.UNKNOWN_OBJECT, label)})
    assert told(dev, label) == [Act.UNKNOWN_OBJECT]
    assert reconciled(dev, capsys) == ["unknown-key-object"]
    stranger.destroys(label)
    assert eventually(lambda: not rows(dev))
    assert reconciled(dev, capsys) == []
    assert told(dev, label) == [Act.UNKNOWN_OBJECT, Act.DRIFT_GONE]


def test_a_key_that_was_put_in_the_place_of_ours(dev):
    """The same label, and another key, which can be carried out of the token."""
    stranger, label = Stranger(dev), "capsign/demo/orders/1"
    dev.replace_adapter(module=MODULE)
    stranger.destroys(label)
    assert eventually(lambda: names(dev) == {(DriftKind.MISSING_OBJECT, label)})
    stranger.makes(label, "--extractable")
    assert eventually(lambda: names(dev) == {(DriftKind.KEY_ATTRIBUTE, label)})
    aspects = {row.difference.aspect for row in rows(dev)}
    assert {"check-value", "extractable", "never-extractable"} <= aspects


def test_a_file_that_was_changed_while_two_replicas_run(tmp_path):
    """The one whose file it is is named until it is restarted; then the other one, which runs with
    what was before, until both have the same.
    """
    dev = Dev(tmp_path / "d", workers=2)
    try:
        for index in range(2):
            dev.end(dev.adapter(index))
        processes = [dev.start_adapter(index, module=MODULE) for index in range(2)]
        for one in dev.about["adapters"]:
            dev.wait_serving(one["health"])
        ours = [Path(one["config"]) for one in dev.about["adapters"]]
        before = [file.read_text() for file in ours]
        assert "lease_ms" not in before[0]
        changed = [text + "\n[control]\nlease_ms = 3500\n" for text in before]
        ours[1].write_text(changed[1])
        assert eventually(lambda: len(rows(dev)) == 1)
        (row,) = rows(dev)
        assert row.difference.kind is DriftKind.CONFIGURATION
        assert row.difference.subject.endswith("/file")
        assert (row.difference.aspect, row.difference.expected, row.difference.found) == (
            "control.lease_ms",
            "3500",
            "3000",
        )
        named = row.difference.subject.removesuffix("/file")

        def restarted(index: int) -> None:
            processes[index].terminate()
            processes[index].wait(timeout=30)
            processes[index] = dev.start_adapter(index, module=MODULE)
            dev.wait_serving(dev.about["adapters"][index]["health"])

        restarted(1)
        assert eventually(
            lambda: (
                len(names(dev)) == 1
                and not any(subject.endswith("/file") for _, subject in names(dev))
            )
        )
        (row,) = rows(dev)
        assert (row.difference.aspect, row.difference.found) == ("control.lease_ms", "3000")
        assert row.difference.subject != named
        ours[0].write_text(changed[0])
        restarted(0)
        assert eventually(lambda: not rows(dev))
        subject = f"{named}/file"
        assert told(dev, subject) == [Act.DRIFT_FOUND, Act.DRIFT_GONE]
    finally:
        dev.close()
