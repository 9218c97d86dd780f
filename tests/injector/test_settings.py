"""The platform team's file: every fault has a sentence with the key in it."""

from __future__ import annotations

import pytest
from capsign_injector.settings import MAX_FILE_BYTES, Settings, parse
from capsign_wire.settings import SettingsError


def test_an_empty_file_is_the_defaults():
    assert parse(b"", "x") == parse(b"# nothing\n", "x") == parse(b"{}", "x") == Settings()


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("imag: x", "imag", "Did you mean `image`?"),
        ("image: ''", "image", "image reference"),
        ("image: 'a b'", "image", "image reference"),
        ("image: 7", "image", "expected `str`"),
        ("image_pull_policy: Sometimes", "image_pull_policy", "Sometimes"),
        ("image_pull_secrets: [A B]", "image_pull_secrets[0]", "Secret"),
        ("image_pull_secrets: [a..b]", "image_pull_secrets[0]", "Secret"),
        ("trust_domain: spiffe://x", "trust_domain", "trust domain"),
        ("audience: ''", "audience", "printable"),
        ("bundle_file: bundle.pem", "bundle_file", "absolute"),
        ("journal_max_bytes: 1", "journal_max_bytes", "1048576"),
        ("adapter: {targets: []}", "adapter.targets", "length"),
        ("adapter: {targets: [adapter]}", "adapter.targets[0]", "host:port"),
        ("adapter: {enrolment_targets: ['a:1', 'b']}", "adapter.enrolment_targets[1]", "host:port"),
        ("adapter: {log_key: key}", "adapter.log_key", "name+id+key"),
        ("adapter: {server_name: A_B}", "adapter.server_name", "DNS"),
        ("profiles: {}", "profiles", "length"),
        ("profiles: {payments: {}}", "profiles", "must have a profile `default`"),
        ("profiles: {default: {}, 'A B': {}}", "profiles.A B", "lower-case"),
        ("profiles: {default: {grant: [x]}}", "profiles.default.grant", "Did you mean `grants`?"),
        ("profiles: {default: {grants: ['A!']}}", "profiles.default.grants[0]", "name of a grant"),
        ("profiles: {default: {namespaces: ['*']}}", "profiles.default.namespaces[0]", "namespace"),
        ("profiles: {default: {cpu_request: lots}}", "profiles.default.cpu_request", "quantity"),
        ("profiles: {default: {memory_limit: '0'}}", "profiles.default.memory_limit", "above 0"),
        (
            "profiles: {default: {memory_request: 1Gi}}",
            "profiles.default.memory_request",
            "not be above `memory_limit`",
        ),
        (
            "profiles: {default: {memory_limit: 1Gi}}",
            "profiles.default.memory_limit",
            "not be above `memory_limit_max`",
        ),
        (
            "profiles: {default: {memory_request: 8Mi, memory_limit: 16Mi}}",
            "profiles.default.memory_limit",
            "at least 32Mi",
        ),
        (
            "profiles: {default: {cpu_limit: 5m}}",
            "profiles.default.cpu_request",
            "not be above `cpu_limit`",
        ),
        ("profiles: {default: {may_set: [image]}}", "profiles.default.may_set[0]", "image"),
        ("profiles: {default: {}, pay: {log_level: loud}}", "profiles.pay.log_level", "loud"),
        ("profiles: {default: {engine: tonic}}", "profiles.default.engine", "tonic"),
        ("profiles: {default: {}, pay: 7}", "profiles.pay", "got `int`"),
        ("server: {secret: A_B}", "server.secret", "Secret"),
        ("server: {webhook_configuration: a..b}", "server.webhook_configuration", "object's name"),
        ("- a", "", "mapping"),
        ("7: a", "", "mapping"),
        ("a: [", "", "not YAML at line 1"),
        ("a: !!python/object:os.system {}", "", "not YAML"),
        ("[" * 5000, "", "nested too deeply"),
        ("#" * (MAX_FILE_BYTES + 1), "", "larger than"),
    ],
)
def test_every_fault_names_its_key_and_the_fix(text, key, says):
    with pytest.raises(SettingsError) as caught:
        parse(text.encode(), "settings.yaml")
    assert caught.value.key == key
    assert str(caught.value).startswith("settings.yaml")
    assert says in str(caught.value)


def test_not_utf_8():
    with pytest.raises(SettingsError, match="not YAML"):
        parse(b"image: \xff", "settings.yaml")


def test_the_name_of_an_object_has_one_bound_only():
    """In a namespace with a long name the injector did not start: its webhook configuration's name
    has a part of 80 characters, which the API server takes and a rule for DNS names did not.
    """
    name = "capsign-injector-" + "n" * 63
    assert (
        parse(
            f"server: {{webhook_configuration: {name}, secret: {name}}}".encode(), "x"
        ).server.webhook_configuration
        == name
    )
    assert parse(f"image_pull_secrets: [{name}]".encode(), "x").image_pull_secrets == (name,)
