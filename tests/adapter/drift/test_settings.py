"""The configuration as names and values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from capsign_adapter.config import (
    Chart,
    Config,
    Control,
    Identity,
    Listen,
    LogConfig,
    StoreConfig,
    Tls,
    TokenConfig,
)
from capsign_adapter.decide.policy import Policy
from capsign_adapter.drift.own_look import TLS_EVERY_MS, OwnLook
from capsign_adapter.drift.settings import OnDisk, settings_of, shared_of
from capsign_adapter.drift.tls_look import Listener, TlsView
from capsign_evidence.drift_leaf import DriftKind
from capsign_wire.settings import SettingsError
from support.adapter_rig import RULES

CONFIG = Config(
    listen=Listen(address="127.0.0.1:0"),
    tls=Tls(),
    token=TokenConfig(module=Path("/m"), label="t", pin_file=Path("/p")),
    store=StoreConfig(url="postgresql://somebody@db.internal/capsign"),
    log=LogConfig(origin="capsign.test/log"),
    policy=Path("/none"),
    identity=Identity(),
)


class NoAuthorities:
    def authorities(self):
        return []


def look(config: Config = CONFIG, policy: Policy = RULES, reload=None):
    own = OwnLook(config, lambda: policy, NoAuthorities())
    own.reload = reload
    return [(one.kind, one.subject, one.aspect, one.found) for one in own(False).differences]


def test_every_setting_has_its_dotted_name():
    settings = settings_of(CONFIG)
    assert settings["listen.streams"] == "32"
    assert settings["control.poll_ms"] == "200"
    assert settings["identity.svid_ttl_s"] == "3600"
    assert settings["identity.kubernetes"] == settings["chart"] == "none"
    assert len(settings) > 30


def test_where_the_store_is_stands_there_as_a_digest():
    assert "somebody" not in "".join(settings_of(CONFIG).values())


def test_addresses_and_paths_are_each_replicas_own():
    shared = dict(shared_of(settings_of(CONFIG)))
    assert "control.lease_ms" in shared
    assert "log.origin" in shared
    assert not {"listen.address", "tls.names", "policy", "store.url", "token.module"} & set(shared)


def test_a_file_that_was_changed_and_not_read_by_a_restart():
    changed = msgspec.structs.replace(CONFIG, control=Control(lease_ms=5000))
    assert look(reload=lambda: CONFIG) == []
    assert look(reload=lambda: changed) == [
        (DriftKind.CONFIGURATION, "file", "control.lease_ms", "3000")
    ]


@pytest.mark.parametrize("error", [SettingsError("no", key="listen"), FileNotFoundError()])
def test_a_file_that_the_next_start_would_refuse(error):
    def reload():
        raise error

    assert look(reload=reload) == [
        (DriftKind.CONFIGURATION, "file", "readable", "none that can be read")
    ]


def test_a_listener_that_answered_is_asked_again_minutes_later():
    now, asked = [0], []

    def look(at):
        asked.append(at.name)
        return None if at.name == "b" else TlsView({"wanted": "x", "client-certificate": "x"}, 0)

    own = OwnLook(CONFIG, lambda: RULES, NoAuthorities(), lambda: now[0], look)
    own.listeners = lambda: [Listener(name, "h", 1, "none") for name in "ab"]
    for _ in range(2):
        own(False)
    assert asked == ["a", "b", "b"]
    now[0] = TLS_EVERY_MS
    own(False)
    assert asked == ["a", "b", "b", "a", "b"]


def test_listeners_are_looked_at_when_the_policy_changes_and_when_somebody_asks():
    policy, asked = [RULES], []

    def look(at):
        asked.append(at.name)
        return TlsView({"wanted": "none", "client-certificate": "none"}, 0)

    own = OwnLook(CONFIG, lambda: policy[0], NoAuthorities(), lambda: 0, look)
    own.listeners = lambda: [Listener("a", "h", 1, "none")]
    for thorough, looks in ((False, 1), (False, 1), (True, 2), (False, 2)):
        own(thorough)
        assert len(asked) == looks
    policy[0] = replace(RULES, digest=bytes(32))
    own(False)
    own(False)
    assert len(asked) == 3


def test_a_chart_whose_trust_domain_is_not_the_policys():
    chart = msgspec.structs.replace(CONFIG, chart=Chart(trust_domain=RULES.trust_domain))
    assert look(chart) == []
    other = replace(RULES, trust_domain="another.test")
    assert look(chart, other) == [(DriftKind.CHART, "chart", "trust_domain", RULES.trust_domain)]


def test_a_profile_of_the_chart_whose_grant_the_policy_has_not():
    """Agents with that profile get no handle, and their pods say nothing but that."""
    known = RULES.grants[0].name
    chart = msgspec.structs.replace(CONFIG, chart=Chart(grants=(known, "orders-old")))
    assert look(chart) == [(DriftKind.CHART, "chart/grant/orders-old", "grant", "none")]


def test_a_file_is_parsed_when_its_bytes_are_others_than_before(tmp_path):
    """Each look parsed it again, which was a tenth of what an idle adapter computed."""
    file, parsed = tmp_path / "adapter.toml", []

    def parse() -> Config:
        parsed.append(file.read_text())
        if parsed[-1] == "bad":
            raise SettingsError("no", key="x")
        return replaced_with(parsed[-1])

    on_disk = OnDisk(file, parse)
    with pytest.raises(OSError, match="No such file"):
        on_disk()
    for text, times in (("a", 1), ("a", 1), ("b", 2)):
        file.write_text(text)
        assert on_disk().log.origin == text
        assert len(parsed) == times
    file.write_text("bad")
    for _ in range(2):
        with pytest.raises(SettingsError):
            on_disk()
    file.write_text("b")
    assert on_disk().log.origin == "b"


def replaced_with(origin: str) -> Config:
    return msgspec.structs.replace(CONFIG, log=LogConfig(origin=origin))
