"""C2SP signed-note and tlog-checkpoint."""

import base64

import pytest
from capsign_evidence.checkpoint import TreeHead, open_checkpoint, sign_checkpoint
from capsign_evidence.merkle import EMPTY_ROOT
from capsign_evidence.note import (
    Note,
    NoteError,
    SignatureLine,
    VerifierKey,
    open_note,
    parse_note,
    sign_note,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEY = VerifierKey("log.capsign.test/main", PRIVATE.public_key().public_bytes_raw())
WITNESS = VerifierKey("witness.capsign.test/w1", OTHER.public_key().public_bytes_raw())
NOTE = sign_note("first line\n\nlast line\n", KEY, PRIVATE.sign)

# The key and the signed note in the documentation of golang.org/x/mod/sumdb/note (PROVENANCE.md).
PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\u2014 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_published_verifier_key_is_read_and_written():
    assert VerifierKey.parse(PETER_KEY).text() == PETER_KEY


def test_the_published_note_of_the_go_package_opens():
    note = open_note(PETER_NOTE.encode(), [VerifierKey.parse(PETER_KEY)])
    assert note.text.endswith("what your problem is.\n")
    assert note.encode() == PETER_NOTE.encode()


def test_a_note_opens_with_its_key_and_with_no_other():
    assert open_note(NOTE, [KEY]).text == "first line\n\nlast line\n"
    with pytest.raises(NoteError, match="no known key"):
        open_note(NOTE, [WITNESS])
    with pytest.raises(NoteError, match="no known key"):
        open_note(NOTE, [])


@given(st.integers(0, len(NOTE) - 1), st.integers(1, 255))
def test_a_note_with_any_byte_altered_is_refused(at, change):
    altered = bytearray(NOTE)
    altered[at] ^= change
    with pytest.raises(NoteError):
        open_note(bytes(altered), [KEY])


@given(st.integers(0, len(NOTE) - 1))
def test_a_note_that_is_cut_off_is_refused(length):
    with pytest.raises(NoteError):
        open_note(NOTE[:length], [KEY])


def test_unknown_signatures_beside_ours_are_left_alone():
    lines = (
        SignatureLine("unknown.test/x", b"\x01\x02\x03\x04", b"what ever"),
        # A witness's cosignature (type 0x04) has a timestamp before the signature, and another key
        # id.
        SignatureLine(WITNESS.name, b"\x09\x09\x09\x09", bytes(72)),
        # The name of a known key with an id that is not its own.
        SignatureLine(KEY.name, b"\x00\x00\x00\x00", bytes(64)),
    )
    parsed = parse_note(NOTE)
    together = Note(parsed.text, (*lines[:1], *parsed.lines, *lines[1:])).encode()
    assert open_note(together, [KEY, WITNESS]).text == parsed.text


def test_a_bad_signature_under_a_known_key_spoils_the_note():
    parsed = parse_note(NOTE)
    bad = SignatureLine(WITNESS.name, WITNESS.key_id, bytes(64))
    with pytest.raises(NoteError, match="witness"):
        open_note(Note(parsed.text, (*parsed.lines, bad)).encode(), [KEY, WITNESS])


def test_a_key_whose_id_collides_cannot_pass_for_ours():
    """Key ids have 4 bytes and can be made to collide; what holds is the key itself."""
    signature = OTHER.sign(b"text\n")
    forged = Note("text\n", (SignatureLine(KEY.name, KEY.key_id, signature),)).encode()
    with pytest.raises(NoteError, match="does not verify"):
        open_note(forged, [KEY])


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\n\n",
        b"text\n",
        b"text\n\n",
        b"text\n\n\xe2\x80\x94 name AAAAAAAA\n\n",
        b"text\n\n\xe2\x80\x94 name AAAAAAAA",
        b"text\n\n- name AAAAAAAA\n",
        b"text\n\n\xe2\x80\x94 na+me AAAAAAAA\n",
        b"text\n\n\xe2\x80\x94  AAAAAAAA\n",
        b"text\n\n\xe2\x80\x94 name AAAA\n",
        b"text\n\n\xe2\x80\x94 name AAAAAAA\n",
        b"text\n\n\xe2\x80\x94 name AAAAAAB=\n",
        b"text\n\n\xe2\x80\x94 name AAAAA AAA\n",
        b"te\rxt\n\n\xe2\x80\x94 name AAAAAAAA\n",
        b"te\x00xt\n\n\xe2\x80\x94 name AAAAAAAA\n",
        b"te\xff\n\n\xe2\x80\x94 name AAAAAAAA\n",
        b"text\n\n" + b"\xe2\x80\x94 name AAAAAAAA\n" * 65,
        b"x" * 70_000,
    ],
    ids=[
        "empty",
        "newlines",
        "no-signatures",
        "no-signature-line",
        "ends-empty",
        "no-newline",
        "no-dash",
        "plus-in-name",
        "no-name",
        "too-short",
        "bad-padding",
        "not-canonical",
        "space",
        "carriage-return",
        "nul",
        "not-utf8",
        "too-many",
        "too-long",
    ],
)
def test_a_malformed_note_is_refused(damaged):
    with pytest.raises(NoteError):
        parse_note(damaged)


def test_sixteen_signatures_are_read_as_the_specification_demands():
    assert len(parse_note(b"text\n\n" + b"\xe2\x80\x94 name AAAAAAAA\n" * 16).lines) == 16


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000",
        "log.capsign.test/main+00000000+" + KEY.text().split("+", 2)[2],
        KEY.text()[:-4],
        KEY.text() + "=",
        "na me" + KEY.text()[KEY.text().index("+") :],
        KEY.text().replace("log.", "gol."),
    ],
)
def test_a_malformed_verifier_key_is_refused(text):
    with pytest.raises(NoteError):
        VerifierKey.parse(text)


@pytest.mark.parametrize("text", ["", "no newline", "tab\t\n", "return\r\n"])
def test_text_that_no_note_may_hold_is_never_signed(text):
    def sign(_):
        raise AssertionError("must not be asked")

    with pytest.raises(NoteError):
        sign_note(text, KEY, sign)


def test_a_signature_by_the_wrong_key_does_not_leave_the_signer():
    """A token that picks another key of the same label would otherwise publish a checkpoint nobody
    can open.
    """
    with pytest.raises(NoteError, match="does not verify"):
        sign_note("text\n", KEY, OTHER.sign)


CHECKPOINT = sign_checkpoint(20_852_163, bytes(range(32)), KEY, PRIVATE.sign)


def test_a_checkpoint_is_three_lines_and_a_signature():
    assert CHECKPOINT.decode().split("\n")[:4] == [
        "log.capsign.test/main",
        "20852163",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "",
    ]
    assert open_checkpoint(CHECKPOINT, KEY) == TreeHead(KEY.name, 20_852_163, bytes(range(32)))


def test_the_example_of_the_specification_parses():
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    head = TreeHead.parse(text)
    assert head == TreeHead(
        "example.com/behind-the-sofa", 20_852_163, base64.b64decode(text.split("\n")[2])
    )
    assert head.text() == text


def test_the_empty_tree_has_a_checkpoint():
    assert open_checkpoint(sign_checkpoint(0, EMPTY_ROOT, KEY, PRIVATE.sign), KEY).size == 0


def test_extension_lines_are_read_and_kept():
    text = "origin\n1\n" + base64.b64encode(bytes(32)).decode() + "\nextension\n"
    assert TreeHead.parse(text).extensions == ("extension",)


def test_a_checkpoint_of_another_log_under_the_same_key_is_refused():
    text = TreeHead("other.log/x", 1, bytes(32)).text()
    with pytest.raises(NoteError, match="another log"):
        open_checkpoint(sign_note(text, KEY, PRIVATE.sign), KEY)


ROOT_LINE = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "origin\n",
        f"origin\n1\n{ROOT_LINE}",
        f"\n1\n{ROOT_LINE}\n",
        f"origin\n01\n{ROOT_LINE}\n",
        f"origin\n+1\n{ROOT_LINE}\n",
        f"origin\n-1\n{ROOT_LINE}\n",
        f"origin\n1_0\n{ROOT_LINE}\n",
        f"origin\n\u0661\n{ROOT_LINE}\n",
        f"origin\n\n{ROOT_LINE}\n",
        f"origin\n9223372036854775808\n{ROOT_LINE}\n",
        f"origin\n1\n{ROOT_LINE[:-4]}\n",
        f"origin\n1\n{ROOT_LINE} \n",
        f"origin\n1\n{ROOT_LINE}\n\n",
        f"origin\n1\n{ROOT_LINE}\n\nx\n",
    ],
)
def test_a_checkpoint_in_any_other_spelling_is_refused(text):
    with pytest.raises(NoteError):
        TreeHead.parse(text)
