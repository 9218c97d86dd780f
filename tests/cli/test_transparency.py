"""The verifier of `capsign log verify` against the adapter's own log code: two implementations, one
answer.
"""

from __future__ import annotations

import base64

import pytest
from capsign_cli import transparency
from capsign_cli.failures import CliError
from capsign_evidence import tiles
from capsign_evidence.checkpoint import TreeHead, open_checkpoint, sign_checkpoint
from capsign_evidence.cosignature import COSIGNATURE_ML_DSA_44, CosignerKey, cosign
from capsign_evidence.note import Note, NoteError, SignatureLine, VerifierKey, add_lines
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

KEY = Ed25519PrivateKey.generate()
VERIFIER = VerifierKey("capsign.test/log", KEY.public_key().public_bytes_raw())
OTHER = VerifierKey(
    "capsign.test/log", Ed25519PrivateKey.generate().public_key().public_bytes_raw()
)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=70))
def test_root_is_that_of_an_independent_tree(entries):
    oracle, ours = InmemoryTree(algorithm="sha256"), transparency.Frontier()
    for entry in entries:
        oracle.append_entry(entry)
        ours.append(entry)
        assert ours.root() == oracle.get_root()


def test_root_of_the_empty_tree():
    assert (
        transparency.Frontier().root().hex()
        == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


def test_a_checkpoint_of_the_adapter_opens():
    note = sign_checkpoint(7, b"\x07" * 32, VERIFIER, KEY.sign)
    assert transparency.open_checkpoint(note, VERIFIER.text()) == transparency.Head(
        "capsign.test/log", 7, b"\x07" * 32
    )


PQ = MLDSA44PrivateKey.from_seed_bytes(bytes(32))
PQ_VERIFIER = CosignerKey(
    "capsign.test/log", COSIGNATURE_ML_DSA_44, PQ.public_key().public_bytes_raw()
)
PQ_TEXT = TreeHead("capsign.test/log", 7, b"\x07" * 32).text()
PQ_LINE = cosign(PQ_TEXT, PQ_VERIFIER, 1_800_000_000, PQ.sign)


def test_either_signature_of_the_log_opens_its_checkpoint():
    note = add_lines(sign_checkpoint(7, b"\x07" * 32, VERIFIER, KEY.sign), [PQ_LINE])
    for key in (VERIFIER, PQ_VERIFIER):
        assert transparency.open_checkpoint(note, key.text()).size == 7


@given(data=st.data())
def test_an_altered_checkpoint_with_ml_dsa_44_is_refused_by_both(data):
    note = bytearray(Note(PQ_TEXT, (PQ_LINE,)).encode())
    note[data.draw(st.integers(0, len(note) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CliError):
        transparency.open_checkpoint(bytes(note), PQ_VERIFIER.text())
    with pytest.raises(NoteError):
        open_checkpoint(bytes(note), PQ_VERIFIER)


def signature_line(signature):
    """A line in the name of the log's key."""
    return SignatureLine(VERIFIER.name, VERIFIER.key_id, signature).text().encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda note: note.replace(b"\n7\n", b"\n8\n"), "does not verify"),
        (
            lambda note: note.replace(b"capsign.test/log\n", b"capsign.test/lag\n", 1),
            "does not verify",
        ),
        (lambda note: note.rpartition(b"\n\n")[0] + b"\n\n", "malformed"),
        (lambda note: b"", "malformed"),
        (lambda note: b"\xff", "malformed"),
        (
            lambda note: note.replace(b"\xe2\x80\x94 capsign", b"\xe2\x80\x94 capsigm"),
            "No signature",
        ),
        # What is below the text is signed by nobody. It was read loosely once, so that what others
        # refuse was taken here.
        (lambda note: note[:-1], "malformed"),
        (lambda note: note + b"\n", "malformed"),
        (lambda note: note + b"nonsense\n", "malformed"),
        (lambda note: note + "\u2014 witness no-base64\n".encode(), "malformed"),
        (lambda note: note + "\u2014 witness AAAA\n".encode(), "malformed"),
        (lambda note: note + "\u2014 wit+ness AAAAAAAA\n".encode(), "malformed"),
        (lambda note: note + "\u2014 wit\u2028ness AAAAAAAA\n".encode(), "malformed"),
        (lambda note: note + "\u2014 \x1b]0;owned\x07 AAAAAAAA\n".encode(), "malformed"),
        (lambda note: note.replace(b"\n\xe2", b"\r\n\xe2"), "malformed"),
        (lambda note: note + "\u2014 witness AAAAAAAA\n".encode() * 64, "malformed"),
        (lambda note: note + "\u2014 witness ".encode() + b"AAAA" * 20_000 + b"\n", "malformed"),
        (lambda note: note + signature_line(bytes(64)), "does not verify"),
        (lambda note: note + signature_line(b"short"), "does not verify"),
    ],
)
def test_a_checkpoint_that_was_changed_does_not_open(change, words):
    note = change(sign_checkpoint(7, b"\x07" * 32, VERIFIER, KEY.sign))
    with pytest.raises(CliError, match=words):
        transparency.open_checkpoint(note, VERIFIER.text())


def test_lines_of_keys_that_are_not_ours_are_left_alone():
    note = sign_checkpoint(7, b"\x07" * 32, VERIFIER, KEY.sign)
    text, ours = note.rsplit(b"\n\n", 1)
    others = (
        SignatureLine("witness.test/w", b"\x00\x01\x02\x03", bytes(72)).text()
        + SignatureLine(OTHER.name, OTHER.key_id, b"?").text()
    )
    assert (
        transparency.open_checkpoint(text + b"\n\n" + others.encode() + ours, VERIFIER.text()).size
        == 7
    )


BITS = st.tuples(
    st.integers(0, 400),
    st.integers(0, 2),
    st.sampled_from([b"\n", b" ", b"\xe2\x80\x94 ", b"=", b"\x00", b"A", b"0", b"\r", b""]),
)


@given(st.lists(BITS, max_size=3))
def test_two_readers_give_one_verdict(changes):
    """The adapter's reader and this one share no code; what one takes, the other takes."""
    note = sign_checkpoint(7, b"\x07" * 32, VERIFIER, KEY.sign)
    for at, cut, put in changes:
        note = note[:at] + put + note[at + cut :]
    try:
        theirs = open_checkpoint(note, VERIFIER)
    except NoteError:
        with pytest.raises(CliError):
            transparency.open_checkpoint(note, VERIFIER.text())
    else:
        ours = transparency.open_checkpoint(note, VERIFIER.text())
        assert (ours.origin, ours.size, ours.root) == (theirs.origin, theirs.size, theirs.root)


SIGNED = [
    "capsign.test/log\n07\n{root}\n",
    "capsign.test/log\n-7\n{root}\n",
    "capsign.test/log\n9223372036854775808\n{root}\n",
    "capsign.test/log\n7\n{root}",
    "capsign.test/log\n7\n{root}\n\nmore\n",
    "capsign.test/log\n7\n",
    "another/log\n7\n{root}\n",
    "capsign.test/log\n7\n{root}\n\x1b[2J\n",
    "capsign.test/log\n7\nAAAA\n",
    "capsign.test/log\n\u0667\n{root}\n",
    "\n7\n{root}\n",
]


@pytest.mark.parametrize("text", SIGNED)
def test_even_what_the_key_signed_must_be_a_checkpoint(text):
    text = text.format(root=base64.b64encode(b"\x07" * 32).decode())
    note = text.encode() + b"\n" + signature_line(KEY.sign(text.encode()))
    with pytest.raises(CliError):
        transparency.open_checkpoint(note, VERIFIER.text())
    with pytest.raises(NoteError):
        open_checkpoint(note, VERIFIER)


def test_a_checkpoint_by_another_key_does_not_open():
    note = sign_checkpoint(7, b"\x07" * 32, VERIFIER, KEY.sign)
    with pytest.raises(CliError, match="No signature"):
        transparency.open_checkpoint(note, OTHER.text())


def test_a_log_key_that_was_miscopied_is_refused():
    key = VERIFIER.text()
    name, key_id, encoded = key.split("+", 2)
    broken = base64.b64encode(b"\x02" + base64.b64decode(encoded)[1:]).decode()
    for text in (
        "",
        name,
        key[:-4],
        f"{name}+00000000+{encoded}",
        f"{name}+{key_id}+{broken}",
        f"x{key}",
    ):
        with pytest.raises(CliError, match="log key"):
            transparency.open_checkpoint(b"", text)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20))
def test_bundles_split_as_they_were_made(entries):
    bundle = tiles.bundle(entries)
    assert transparency.split_bundle(bundle, len(entries)) == entries
    for width in (len(entries) - 1, len(entries) + 1):
        with pytest.raises(CliError, match="entries that it should have"):
            transparency.split_bundle(bundle, width)


def test_a_bundle_that_is_cut_off_is_refused():
    whole = tiles.bundle([b"abc", b"defg"])
    for end in (1, 2, 4, 6, len(whole) - 1):
        with pytest.raises(CliError, match="cut off"):
            transparency.split_bundle(whole[:end], 2)
