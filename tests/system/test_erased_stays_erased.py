"""An erased tenant and yesterday's copies, with real processes and a real token: whatever is put
back of the database, `provision` and a serving adapter refuse by name, and nothing is made.
"""

from __future__ import annotations

import importlib.resources
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from capsign_wire.adapter.v1 import keys_pb2, tenants_pb2_grpc
from capsign_wire.adapter.v1 import tenants_pb2 as pb
from capsign_wire.intents import new_intent_id
from support.copied_deployment import Place
from support.dev import Dev
from support.direct_adapter import DirectAdapter
from support.hostile import deployment
from support.key_calls import People, eventually

pytestmark = pytest.mark.system

PEPPER = "capsign/demo/pepper"
SERVICE = {"capsign/log", "capsign/log-root", "capsign/mint"}

LABELS = """
import sys, pkcs11
module, pin_file = sys.argv[1:]
token = pkcs11.lib(module).get_token(token_label="capsign")
with token.open(user_pin=open(pin_file).read().strip()) as session:
    print(*{one.label for one in session.get_objects()})
"""


def policy() -> str:
    """That of `capsign dev`, with one key, and no day to wait."""
    found = importlib.resources.files("capsign_cli.dev").joinpath("policy.yaml").read_text()
    document = yaml.safe_load(found)
    document["keys"] = [one for one in document["keys"] if one["name"] == "orders"]
    document["grants"] = [one for one in document["grants"] if one["key"] == "orders"]
    document["approvals"] = {"destroy_wait": "1s"}
    return yaml.safe_dump(document, sort_keys=False)


class Erasure:
    """A deployment that signed, and then erased its tenant; and copies of each moment before."""

    def __init__(self, dev: Dev, kept: Path) -> None:
        self.dev = dev
        self._kept = kept
        with DirectAdapter(dev.about) as workload:
            handle = workload.handle("orders-jwt")
            workload.sign(handle, "ES256", new_intent_id(), bytes(32), protocol="jwt")
        shutil.copytree(dev.directory / "token" / "tokens", kept / "tokens")
        self._copy("in use")
        with DirectAdapter(dev.about, client="operator", where="admin") as operator:
            People(operator.channel).move("deactivate", 1)
            tenants = tenants_pb2_grpc.TenantServiceStub(operator.channel)
            told = tenants.EraseTenant(pb.EraseTenantRequest(tenant="demo"), timeout=30)
            self._copy("proposed")
            with DirectAdapter(dev.about, client="approver", where="admin") as approver:
                People(approver.channel).approve(
                    keys_pb2.DestroyKeyVersionResponse(
                        proposal_id=told.proposal_id, digest=told.digest
                    )
                )
            assert eventually(lambda: self._is_over(tenants, operator))
        for process in (dev.agent, dev.adapter()):
            dev.end(process)

    def _is_over(self, tenants: tenants_pb2_grpc.TenantServiceStub, who: DirectAdapter) -> bool:
        """Pepper and key were shown to be gone."""
        listed = tenants.ListErasures(pb.ListErasuresRequest(), timeout=30).erasures
        gone = any(one.HasField("gone_at") for one in listed)
        return gone and People(who.channel).version(1).HasField("gone_at")

    def _copy(self, moment: str) -> None:
        store = self.dev.directory / "state" / "capsign.sqlite"
        kept = self._kept / moment
        with closing(sqlite3.connect(store)) as one, closing(sqlite3.connect(kept)) as two:
            one.backup(two)

    def put_back(self, place: Place, moment: str) -> None:
        """The database of that moment."""
        for old in place.store.parent.glob(f"{place.store.name}-*"):
            old.unlink()
        shutil.copyfile(self._kept / moment, place.store)

    def put_back_token(self, place: Place) -> None:
        """The token of before the erasure."""
        shutil.rmtree(place.token / "tokens")
        shutil.copytree(self._kept / "tokens", place.token / "tokens")


@pytest.fixture(scope="module")
def erasure(tmp_path_factory):
    kept = tmp_path_factory.mktemp("kept")
    document = kept / "policy.yaml"
    document.write_text(policy())
    with deployment(arguments=("--policy", str(document))) as dev:
        yield Erasure(dev, kept)


@pytest.fixture
def place(erasure, short_dir):
    return Place(erasure.dev, short_dir / "copy")


def objects(place: Place) -> dict[str, bytes]:
    """The keys' files in the token, which counts logins in another."""
    return {
        str(path.relative_to(place.token)): path.read_bytes()
        for path in place.token.rglob("*.object")
        if path.name != "token.object"
    }


def labels(place: Place) -> set[str]:
    """Those of everything in the token. Asked in a process of its own: a login belongs to one."""
    settings = place.token_settings()
    arguments = [str(settings.module), str(settings.pin_file)]
    done = subprocess.run(
        [sys.executable, "-c", LABELS, *arguments],
        env=os.environ | {"SOFTHSM2_CONF": str(settings.config)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("moment", "checkpoint"),
    [
        pytest.param("in use", False, id="in use, and its file of the last checkpoint is gone"),
        pytest.param("proposed", True, id="deactivated and proposed"),
    ],
)
def test_a_restored_database_is_refused(erasure, place, moment, checkpoint):
    erasure.put_back(place, moment)
    if not checkpoint:
        place.store.with_name(f"{place.store.name}.checkpoint").unlink()
    before = objects(place)
    said = place.refused("adapter")
    assert f"The key {PEPPER} is missing from the token." in said
    assert "no pepper for the tenant demo" in place.refused("adapter", "provision")
    assert objects(place) == before, "nothing was made, or destroyed"


def test_database_and_token_of_before_are_shorter_than_the_log_that_was_shown(erasure, place):
    erasure.put_back(place, "in use")
    erasure.put_back_token(place)
    said = place.refused("adapter")
    assert "The store is an older copy or a changed one" in said


def test_the_deployment_as_it_is_starts(place):
    """What is refused above is refused for what was put back."""
    assert place.start("adapter", "--check-config").returncode == 0
    assert place.start("adapter", "provision").returncode == 0
    assert labels(place) == {"capsign/demo/orders/1/spent", *SERVICE}, "no pepper, and no key"
