"""A replica that is made and never started: it meets what a start would, and leaves store and token
as they were.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from capsign_adapter.config import (
    Config,
    Identity,
    Kubernetes,
    Listen,
    LogConfig,
    StoreConfig,
    Tls,
    TokenConfig,
)
from capsign_adapter.identities import realm_of
from capsign_adapter.provisioning import provision_all
from capsign_adapter.serve import Replica
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.store import schema
from capsign_adapter.store.faults import StoreOlderError
from capsign_adapter.store.open import open_store
from capsign_wire.settings import SettingsError
from capsign_wire.telemetry import Metrics
from capsign_wire.tracing import PassingTracer
from support.adapter_rig import AdapterRig, rules
from support.ca import Authority


@pytest.fixture
def rig(tmp_path):
    return AdapterRig(tmp_path / "store")


def config_of(rig: AdapterRig, directory: Path, **kubernetes) -> Config:
    """A deployment whose certificate comes from its own authority."""
    (directory / "token").write_text("token")
    (directory / "ca.crt").write_bytes(Authority().certificate)
    files = {"token_file": directory / "token", "ca_file": directory / "ca.crt"}
    return Config(
        listen=Listen(address="127.0.0.1:0", enrolment_address="127.0.0.1:0"),
        tls=Tls(source="authority", names=("localhost",)),
        token=TokenConfig(module=Path("/none"), label="none", pin_file=Path("/none")),
        store=StoreConfig(url=rig.url),
        log=LogConfig(origin="capsign.test/log"),
        policy=Path("/none"),
        identity=Identity(kubernetes=Kubernetes(**(files | kubernetes))),
    )


def tried(rig: AdapterRig, config: Config) -> None:
    Replica(config, rig.policy, rig.token, rig.store, (Metrics(), PassingTracer()), trial=True)


def held(rig: AdapterRig) -> tuple[object, ...]:
    control = rig.store.control()
    return (
        control,
        rig.store.authorities(),
        rig.store.key_versions(),
        rig.store.laggards(2**40),
        rig.token.labels(),
    )


def test_an_authority_is_looked_at_and_signs_nothing(rig, tmp_path):
    config = config_of(rig, tmp_path)
    provision_all(rig.policy, rig.token, rig.store, now_ms(), realm_of(config.identity, rules))
    before = held(rig)
    tried(rig, config)
    assert held(rig) == before


def test_without_an_authority(rig, tmp_path):
    with pytest.raises(SettingsError, match="provision"):
        tried(rig, config_of(rig, tmp_path))


def test_with_an_authority_that_has_ended(rig, tmp_path):
    config = config_of(rig, tmp_path)
    provision_all(rig.policy, rig.token, rig.store, now_ms(), realm_of(config.identity, rules))
    past = [replace(row, expires_ms=now_ms() - 1) for row in rig.store.authorities()]
    rig.store.instead(authorities=lambda: past)
    with pytest.raises(SettingsError, match="authority status"):
        tried(rig, config)


@pytest.mark.parametrize("name", ["token", "ca.crt"])
def test_without_what_the_cluster_is_asked_with(rig, tmp_path, name):
    config = config_of(rig, tmp_path)
    provision_all(rig.policy, rig.token, rig.store, now_ms(), realm_of(config.identity, rules))
    (tmp_path / name).unlink()
    with pytest.raises(SettingsError, match=name):
        tried(rig, config)


def test_a_store_of_an_older_release_is_left_to_a_start(rig):
    path = Path(rig.url.removeprefix("sqlite://"))
    rig.store.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("DELETE FROM schema_migrations WHERE number = ?", (schema.LATEST,))
        other.commit()
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(StoreOlderError):
        open_store(rig.url, trial=True)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
