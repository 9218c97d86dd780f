"""Settings that contradict each other are refused in a sentence that names the key and the fix."""

from __future__ import annotations

import pytest
from capsign_adapter.config import load
from capsign_wire.settings import SettingsError

FILES = """
[tls]
certificate = "/c.pem"
private_key = "/c.key"
client_ca = "/ca.pem"
"""
OWN = """
[tls]
source = "authority"
names = ["capsign-adapter.capsign-system.svc", "10.0.0.1", "::1"]
"""
IDENTITY = "[identity]\n"
CLUSTER = "[identity.kubernetes]\n"


@pytest.fixture
def read(tmp_path):
    """Loads a configuration of these parts."""

    def load_parts(*parts: str, listen: str = "", **environ: str):
        path = tmp_path / "adapter.toml"
        path.write_text(
            f'policy = "/policy.yaml"\n[listen]\naddress = "127.0.0.1:0"\n{listen}\n'
            '[token]\nmodule = "/m.so"\nlabel = "capsign"\npin_file = "/pin"\n'
            '[store]\nurl = "sqlite:///s.db"\n[log]\norigin = "capsign.test/log"\n'
            + "\n".join(parts)
        )
        return load(path, environ)

    return load_parts


def test_what_was_good_before_there_was_an_authority_still_is(read):
    config = read(FILES)
    assert (config.tls.source, config.identity, config.listen.enrolment_address) == (
        "files",
        None,
        "",
    )


def test_an_authority_needs_no_file(read):
    config = read(OWN, IDENTITY, CLUSTER, listen='enrolment_address = "0.0.0.0:7444"')
    assert config.tls.certificate is None
    assert config.identity.kubernetes.audience == "capsign"
    assert (config.identity.svid_ttl_s, config.identity.propagation_s) == (3600, 600)


def test_an_operators_ca_may_stand_beside_the_bundle(read):
    assert (
        read(OWN + 'client_ca = "/operators.pem"', IDENTITY).tls.client_ca.name == "operators.pem"
    )


def test_variables_reach_the_sections(read):
    config = read(
        OWN,
        IDENTITY,
        CLUSTER,
        CAPSIGN_ADAPTER_IDENTITY_SVID_TTL_S="600",
        CAPSIGN_ADAPTER_IDENTITY_KUBERNETES_AUDIENCE="x",
    )
    assert (config.identity.svid_ttl_s, config.identity.kubernetes.audience) == (600, "x")


@pytest.mark.parametrize("small", ["svid_ttl_s = 1\npropagation_s = 1\nauthority_ttl_s = 60"])
def test_lives_of_seconds_are_possible(read, small):
    assert read(OWN, IDENTITY + small).identity.svid_ttl_s == 1


@pytest.mark.parametrize(
    ("parts", "key", "words"),
    [
        (["[tls]\n"], "tls.certificate", "Name the PEM file"),
        ([FILES.replace('client_ca = "/ca.pem"', "")], "tls.client_ca", "Name the PEM file"),
        ([FILES + 'names = ["localhost"]'], "tls.names", "Remove it"),
        ([FILES + 'source = "acme"'], "tls.source", "files or authority"),
        ([OWN], "tls.source", "no section \\[identity\\]"),
        ([OWN.replace("names = ", "# "), IDENTITY], "tls.names", "List the DNS names"),
        (
            [OWN + 'certificate = "/c.pem"', IDENTITY],
            "tls.certificate",
            "Remove it, or change the source",
        ),
        ([OWN.replace("10.0.0.1", "10.0.0.1:7443"), IDENTITY], "tls.names", "without ports"),
        ([OWN.replace("10.0.0.1", "a b"), IDENTITY], "tls.names", "must list DNS names"),
        (
            [OWN, IDENTITY + "authority_ttl_s = 12000"],
            "identity.authority_ttl_s",
            "must be at least 15",
        ),
        ([OWN, IDENTITY + "svid_ttl_s = 0"], "identity.svid_ttl_s", ">= 1"),
        (
            [OWN, IDENTITY, CLUSTER + 'api_server = "http://10.0.0.1"'],
            "identity.kubernetes.api_server",
            "https://host",
        ),
        (
            [OWN, IDENTITY, CLUSTER + 'bundle_config_map = "trust"'],
            "identity.kubernetes.bundle_config_map",
            "namespace/name",
        ),
        (
            [OWN, IDENTITY, CLUSTER + 'token_file = "token"'],
            "identity.kubernetes.token_file",
            "absolute",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_a_contradiction_is_refused_by_name(read, parts, key, words):
    with pytest.raises(SettingsError, match=words) as caught:
        read(*parts)
    assert caught.value.key == key
    assert f"`{key}`" in str(caught.value)


def test_a_door_without_a_cluster_is_refused(read):
    for parts in ([FILES], [OWN, IDENTITY]):
        with pytest.raises(SettingsError, match=r"\[identity.kubernetes\]") as caught:
            read(*parts, listen='enrolment_address = "0.0.0.0:7444"')
        assert caught.value.key == "listen.enrolment_address"
