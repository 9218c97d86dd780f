"""The verifier of `capsign log verify` against the adapter's own log code: two implementations, one answer."""

from __future__ import annotations

import base64

import pytest
from capsign_adapter.evidence import tiles
from capsign_adapter.evidence.checkpoint import sign_checkpoint
from capsign_adapter.evidence.note import VerifierKey
from capsign_cli import transparency
from capsign_cli.failures import CliError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

KEY = Ed25519PrivateKey.generate()
VERIFIER = VerifierKey("capsign.test/log", KEY.public_key().public_bytes_raw())
OTHER = VerifierKey("capsign.test/log", Ed25519PrivateKey.generate().public_key().public_bytes_raw())


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=70))
def test_root_is_that_of_an_independent_tree(entries):
    oracle, ours = InmemoryTree(algorithm="sha256"), transparency.Frontier()
    for entry in entries:
        oracle.append_entry(entry)
        ours.append(entry)
        assert ours.root() == oracle.get_root()


def test_root_of_the_empty_tree():
    assert transparency.Frontier().root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_checkpoint_of_the_adapter_opens():
    note = sign_checkpoint(7, b"\x07" * 32, VERIFIER, KEY.sign)
    assert transparency.open_checkpoint(note, VERIFIER.text()) == transparency.Head("capsign.test/log", 7, b"\x07" * 32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda note: note.replace(b"\n7\n", b"\n8\n"), "does not verify"),
        (lambda note: note.replace(b"capsign.test/log\n", b"capsign.test/lag\n", 1), "does not verify"),
        (lambda note: note.rpartition(b"\n\n")[0] + b"\n\n", "No signature"),
        (lambda note: b"", "No signature"),
        (lambda note: b"\xff", "malformed"),
        (lambda note: note.replace(b"\xe2\x80\x94 capsign", b"\xe2\x80\x94 capsigm"), "No signature"),
    ],
)
def test_a_checkpoint_that_was_changed_does_not_open(change, words):
    note = change(sign_checkpoint(7, b"\x07" * 32, VERIFIER, KEY.sign))
    with pytest.raises(CliError, match=words):
        transparency.open_checkpoint(note, VERIFIER.text())


def test_a_checkpoint_by_another_key_does_not_open():
    note = sign_checkpoint(7, b"\x07" * 32, VERIFIER, KEY.sign)
    with pytest.raises(CliError, match="No signature"):
        transparency.open_checkpoint(note, OTHER.text())


def test_a_log_key_that_was_miscopied_is_refused():
    key = VERIFIER.text()
    name, key_id, encoded = key.split("+", 2)
    broken = base64.b64encode(b"\x02" + base64.b64decode(encoded)[1:]).decode()
    for text in ("", name, key[:-4], f"{name}+00000000+{encoded}", f"{name}+{key_id}+{broken}", f"x{key}"):
        with pytest.raises(CliError, match="log key"):
            transparency.open_checkpoint(b"", text)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20))
def test_bundles_split_as_they_were_made(entries):
    assert transparency.split_bundle(tiles.bundle(entries)) == entries


def test_a_bundle_that_is_cut_off_is_refused():
    whole = tiles.bundle([b"abc", b"defg"])
    for end in (1, 2, 4, 6, len(whole) - 1):
        with pytest.raises(CliError, match="cut off"):
            transparency.split_bundle(whole[:end])
