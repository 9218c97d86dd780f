"""What is wrong before the first call: settings, policy, token, store, files.

Each gives exit code 2, a sentence that helps, and no secret.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.ca import Authority
from support.copied_deployment import Place
from support.hostile import deployment


@pytest.fixture(scope="module")
def dev():
    """A deployment that was made and stopped: everything is in its place, and nothing runs."""
    with deployment() as one:
        for process in (one.agent, one.adapter()):
            one.end(process)
        yield one


@pytest.fixture
def place(dev, short_dir):
    """A copy of its files, to be broken."""
    return Place(dev, short_dir / "copy")


def test_the_copy_is_good(place):
    for program in ("adapter", "agent"):
        assert place.start(program, "--check-config").returncode == 0


# Settings.

BROKEN_FILES = {
    "empty": b"",
    "not TOML": b"[listen\naddress = ",
    "binary": bytes(range(256)),
    "not UTF-8": b'x = "\xc3\x28"',
    "a million keys": b"".join(b"k%d = 1\n" % number for number in range(100_000)),
    "deep": b"x = " + b"[" * 5000 + b"]" * 5000,
    "control characters": b'[listen]\naddress = "a\x00b"\n',
}


@pytest.mark.parametrize("program", ["adapter", "agent"])
@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_settings_file_that_is_none(place, program, name):
    place.config(program).write_bytes(BROKEN_FILES[name])
    said = place.refused(program)
    assert str(place.config(program)) in said


@pytest.mark.parametrize("program", ["adapter", "agent"])
def test_no_settings_file(place, program):
    place.config(program).unlink()
    assert "cannot be read" in place.refused(program)
    place.config(program).mkdir()
    assert "cannot be read" in place.refused(program)


WRONG_KEYS = [
    ("adapter", r"^address = .*", 'adress = "127.0.0.1:1"', "address"),
    ("adapter", r"^address = .*", "address = 5", "listen.address"),
    ("adapter", r"^address = .*", 'address = "nowhere.invalid:99999"', "listen"),
    ("adapter", r"^url = .*", 'url = "mysql://x/y"', "sqlite:///"),
    ("adapter", r"^url = .*", 'url = "postgresql://user:hunter2@localhost/x"', "password"),
    ("adapter", r"^origin = .*", 'origin = ""', "origin"),
    ("adapter", r"^\[log\]", "[log]\ncheckpoint_every_ms = 0", "log.checkpoint_every_ms"),
    ("adapter", r"^\[listen\]", "[listen]\nstreams = -1", "listen.streams"),
    ("adapter", r"^origin = .*", 'origin = "two words"', "origin"),
    ("agent", r"^targets = .*", "targets = []", "targets"),
    ("agent", r"^targets = .*", 'targets = ["http://x"]', "targets"),
    ("agent", r"^name = .*", 'name = "Not A Name"', "name"),
    ("agent", r"^path = .*", f'path = "/tmp/{"x" * 120}"', "107"),
    ("agent", r"^path = .*", 'path = "relative.sock"', "absolute"),
]


@pytest.mark.parametrize(
    ("program", "old", "new", "word"), WRONG_KEYS, ids=[new for _, _, new, _ in WRONG_KEYS]
)
def test_a_wrong_key_is_named(place, program, old, new, word):
    place.change(program, old, new)
    said = place.refused(program)
    assert word in said
    assert "hunter2" not in said


@pytest.mark.parametrize("program", ["adapter", "agent"])
def test_a_variable_that_overrides_nothing(place, program):
    assert "overrides nothing" in place.refused(
        program, **{f"CAPSIGN_{program.upper()}_LISTEN_ADRESS": "x"}
    )


# Policy.

BROKEN_POLICIES = {
    "empty": b"",
    "not YAML": b"a: [1, 2\nb: }",
    "binary": bytes(range(256)),
    "not a mapping": b"- 1\n- 2\n",
    "an alias bomb": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(
        b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(8)
    ),
    "a Python object": b"!!python/object/apply:os.system ['touch /tmp/capsign-pwned']\n",
    "deep": b"[" * 10_000 + b"]" * 10_000,
    "five MiB": b"# " + b"x" * (5 * 1024 * 1024),
    "a key twice": b"version: 1\nversion: 2\n",
    "control characters": b'version: 1\ntrust_domain: "a\\u0000b"\n',
    "a version of the future": b"version: 99\n",
}


@pytest.mark.parametrize("name", BROKEN_POLICIES)
def test_a_policy_that_is_none(place, name):
    place.policy.write_bytes(BROKEN_POLICIES[name])
    said = place.refused("adapter")
    assert str(place.policy) in said
    assert not Path("/tmp/capsign-pwned").exists()


def test_no_policy(place):
    place.policy.unlink()
    assert str(place.policy) in place.refused("adapter")


WRONG_POLICIES = [
    ("algorithms: [ES384]", "algorithms: [ES999]", "ES999"),
    ("purpose: jwt", 'purpose: "jwt\\n"', "control character"),
    ("key: orders", "key: nobody", "nobody"),
    ("tenant: demo\n    key: orders", "tenant: nobody\n    key: orders", "nobody"),
    ("ttl: 10s", "ttl: 100h", "ttl"),
    ("spiffe://capsign.test/ns/demo/sa/app", "spiffe://evil.test/ns/demo/sa/app", "trust"),
    ("spiffe://capsign.test/ns/demo/sa/app", "https://capsign.test/app", "workloads"),
    ("rate: {per_second: 100, burst: 100}", "rate: {per_second: -1, burst: 100}", "per_second"),
    ("version: 1\n", "version: 1\nunheard_of: true\n", "unheard_of"),
]


@pytest.mark.parametrize(
    ("old", "new", "word"),
    WRONG_POLICIES,
    ids=[word + new[-12:] for _, new, word in WRONG_POLICIES],
)
def test_a_policy_that_means_nothing_is_explained(place, old, new, word):
    text = place.policy.read_text()
    assert old in text
    place.policy.write_text(text.replace(old, new, 1))
    assert word in place.refused("adapter", "--check-config")


def test_ten_thousand_grants_for_one_workload_are_refused(place):
    grant = place.policy.read_text().split("grants:\n")[1].split("  - name: orders-artifact")[0]
    more = "".join(grant.replace("orders-jwt", f"g{number}") for number in range(10_001))
    place.policy.write_text(place.policy.read_text().replace("grants:\n", f"grants:\n{more}"))
    said = place.refused("adapter", "--check-config")
    assert "10000" in said.replace("_", "").replace(",", "") or "256" in said


# Token.


def test_a_wrong_pin_is_tried_once_and_never_told(place):
    (place.token / "capsign.pin").write_text("4711-wrong-4711\n")
    said = place.refused("adapter")
    assert "PIN" in said
    assert "4711" not in said


@pytest.mark.parametrize(
    ("content", "mode", "word"),
    [
        (b"", 0o600, "is empty"),
        (b"\x01\x02", 0o600, "control"),
        (b"\xff\xfe", 0o600, "UTF-8"),
        (b"x" * 999, 0o600, "255"),
        (None, 0o644, "0644"),
    ],
)
def test_a_pin_file_that_cannot_be_used(place, content, mode, word):
    path = place.token / "capsign.pin"
    if content is not None:
        path.write_bytes(content)
    path.chmod(mode)
    assert word in place.refused("adapter")


def test_a_pin_file_that_is_a_link_or_missing(place):
    path = place.token / "capsign.pin"
    path.rename(place.root / "elsewhere")
    assert str(path) in place.refused("adapter")
    path.symlink_to(place.root / "elsewhere")
    assert "link out of its directory" in place.refused("adapter")


def test_an_authority_that_was_not_provisioned(place):
    path = place.config("adapter")
    path.write_text(path.read_text() + "\n[identity]\n")
    assert "capsign-adapter provision" in place.refused("adapter")
    assert place.start("adapter", "provision").returncode == 0
    assert place.start("adapter", "authority").returncode == 0


def test_a_token_that_is_gone_is_not_made_again(place):
    shutil.rmtree(place.token / "tokens")
    (place.token / "tokens").mkdir(mode=0o700)
    said = place.refused("adapter")
    assert "capsign" in said
    assert not list((place.token / "tokens").iterdir())
    assert place.start("adapter", "provision").returncode == 2


def test_a_token_directory_that_is_gone(place):
    shutil.rmtree(place.token / "tokens")
    place.refused("adapter")


DESTROY = """
import sys, pkcs11
module, pin_file, label = sys.argv[1:]
token = pkcs11.lib(module).get_token(token_label="capsign")
with token.open(rw=True, user_pin=open(pin_file).read().strip()) as session:
    found = list(session.get_objects({pkcs11.Attribute.LABEL: label}))
    assert found
    for one in found:
        one.destroy()
"""
"""In a process of its own: a login belongs to the process."""


def test_a_token_that_lost_one_key_stops_the_adapter(place):
    """Absence means stop and ask: the store knows a key that the token lacks, and nothing is made
    in its place.
    """
    objects = place.token / "tokens"
    environ = os.environ | {"SOFTHSM2_CONF": str(place.token / "softhsm2.conf")}
    arguments = [
        place.dev.about["token"]["module"],
        str(place.token / "capsign.pin"),
        "capsign/demo/orders/1",
    ]
    subprocess.run([sys.executable, "-c", DESTROY, *arguments], env=environ, check=True, timeout=60)
    left = len(list(objects.rglob("*.object")))
    assert "capsign/demo/orders/1" in place.refused("adapter")
    assert "capsign/demo/orders/1" in place.refused("adapter", "provision")
    assert len(list(objects.rglob("*.object"))) == left


@pytest.mark.parametrize(
    "module", ["/nonexistent.so", "/etc/hostname", "/usr/lib/x86_64-linux-gnu/libc.so.6"]
)
def test_a_module_that_is_none(place, module):
    place.change("adapter", r"^module = .*", f'module = "{module}"')
    assert module in place.refused("adapter")


def test_a_token_of_another_deployment_is_noticed(place):
    """The store's keys are not this token's: a check value differs, or a label is missing."""
    place.change("adapter", r"^label = .*", 'label = "another"')
    assert "another" in place.refused("adapter")


# Store.


def remove(place):
    place.store.unlink()


def empty(place):
    place.store.write_bytes(b"")


def noise(place):
    place.store.write_bytes(os.urandom(65536))


def cut_off(place):
    whole = place.store.read_bytes()
    place.store.write_bytes(whole[: len(whole) // 2])


def open_to_all(place):
    place.store.chmod(0o644)


def a_directory(place):
    place.store.unlink()
    place.store.mkdir()


def open_directory(place):
    place.store.parent.chmod(0o755)


@pytest.mark.parametrize(
    "breakage",
    [remove, empty, noise, cut_off, open_to_all, a_directory, open_directory],
    ids=lambda one: one.__name__,
)
def test_a_store_that_cannot_be_trusted_stops_the_adapter(place, breakage):
    breakage(place)
    said = place.refused("adapter")
    assert str(place.store) in said or str(place.store.parent) in said


def test_a_store_that_vanished_is_not_made_anew_by_serving(place):
    """Nor by provisioning, over a token that holds keys: somebody has lost the evidence."""
    place.store.unlink()
    place.refused("adapter")
    assert not place.store.exists()
    said = place.refused("adapter", "provision")
    assert "store" in said or "token" in said


# Certificates.


@pytest.mark.parametrize("name", ["adapter.crt", "adapter.key", "ca.crt"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense\n", "another"])
def test_an_adapter_without_good_certificate_files(place, name, content):
    path = place.root / "pki" / name
    path.unlink()
    if content == "another":
        if name == "ca.crt":
            pytest.skip(
                "another CA is a good CA: nobody of ours gets in, which test_hostile_adapter shows"
            )
        made = Authority("another").issue("spiffe://capsign.test/adapter")
        path.write_bytes(made.certificate if name.endswith("crt") else made.private_key)
        path.chmod(0o600)
    elif content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    said = place.refused("adapter")
    assert name in said


@pytest.mark.parametrize("name", ["app.crt", "app.key", "ca.crt"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense\n"])
def test_an_agent_without_good_certificate_files(place, name, content):
    path = place.root / "pki" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    assert name in place.refused("agent")


def test_an_agent_whose_key_others_can_read(place):
    (place.root / "pki" / "app.key").chmod(0o644)
    assert "chmod 600" in place.refused("agent")


# The agent's own state.


def test_a_journal_that_cannot_be_used(place):
    journal = place.root / "state" / "journal"
    shutil.rmtree(journal)
    journal.write_text("a file")
    assert str(journal) in place.refused("agent")


def test_a_journal_that_was_damaged_in_the_middle_stops_the_agent(place):
    boot = place.root / "state" / "journal" / ("1" * 13 + "-" + "ab" * 16)
    boot.mkdir(parents=True)
    (boot / "00000001.seg").write_bytes(b"damaged")
    (boot / "00000002.seg").write_bytes(b"")
    assert "damaged" in place.refused("agent")
    assert (boot / "00000001.seg").read_bytes() == b"damaged"


def test_a_socket_directory_that_cannot_be_made(place):
    shutil.rmtree(place.root / "run")
    (place.root / "run").write_text("a file")
    place.refused("agent")
