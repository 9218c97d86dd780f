"""C2SP tlog-cosignature: Ed25519 and ML-DSA-44."""

import base64
from dataclasses import replace

import pytest
from capsign_evidence.checkpoint import TreeHead, open_checkpoint, sign_checkpoint
from capsign_evidence.cosignature import (
    COSIGNATURE_ED25519,
    COSIGNATURE_ML_DSA_44,
    CosignerKey,
    cosign,
    parse_key,
)
from capsign_evidence.note import NoteError, VerifierKey, add_lines, open_note, parse_note
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from support.vectors import load

PUBLISHED = load("cosignature")
LOG = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LOG_KEY = VerifierKey("log.capsign.test/main", LOG.public_key().public_bytes_raw())
CLASSIC = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\x01")
PQ = MLDSA44PrivateKey.from_seed_bytes(bytes(32))
NAME = "witness.capsign.test/w1"
CLASSIC_KEY = CosignerKey(NAME, COSIGNATURE_ED25519, CLASSIC.public_key().public_bytes_raw())
PQ_KEY = CosignerKey(NAME, COSIGNATURE_ML_DSA_44, PQ.public_key().public_bytes_raw())
SIGNERS = {CLASSIC_KEY: CLASSIC.sign, PQ_KEY: PQ.sign}
BOTH = pytest.mark.parametrize("key", list(SIGNERS), ids=["ed25519", "ml-dsa-44"])
TEXT = TreeHead("log.capsign.test/main", 7, bytes(32)).text()
NOW = 1_679_315_147


def _line(key, text=TEXT, time_s=NOW):
    return cosign(text, key, time_s, SIGNERS[key])


def test_a_published_log_signature_with_ml_dsa_44_is_read():
    key = parse_key(PUBLISHED["ml_dsa_44"]["vkey"])
    assert isinstance(key, CosignerKey)
    assert key.text() == PUBLISHED["ml_dsa_44"]["vkey"]
    note = PUBLISHED["ml_dsa_44"]["checkpoint"].encode()
    assert open_checkpoint(note, key).size == 1
    assert key.time_s(parse_note(note).lines[0].signature) == 0


def test_what_is_signed_with_ed25519_is_the_text_of_the_specification():
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    signed = CLASSIC_KEY.message(text, NOW).decode()
    assert signed == f"cosignature/v1\ntime 1679315147\n{text}"


def test_what_is_signed_with_ml_dsa_44_is_the_structure_of_the_specification():
    signed = PQ_KEY.message(TEXT, NOW)
    assert signed == (
        b"subtree/v1\n\0"
        + bytes((len(NAME),))
        + NAME.encode()
        + NOW.to_bytes(8, "big")
        + b"\x15log.capsign.test/main"
        + bytes(8)
        + (7).to_bytes(8, "big")
        + bytes(32)
    )


@BOTH
def test_a_cosignature_opens_the_checkpoint_and_states_its_time(key):
    note = add_lines(sign_checkpoint(7, bytes(32), LOG_KEY, LOG.sign), [_line(key)])
    assert open_note(note, (LOG_KEY, key)).text == TEXT
    assert open_note(note, (key,)).text == TEXT
    assert key.time_s(parse_note(note).lines[1].signature) == NOW
    assert parse_key(key.text()) == key


@BOTH
@given(data=st.data())
def test_no_altered_cosignature_verifies(key, data):
    whole = bytearray(_line(key).signature)
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(NoteError):
        key.verify(TEXT.encode(), bytes(whole))


@BOTH
@pytest.mark.parametrize("change", [{"size": 8}, {"root": bytes(31) + b"x"}, {"origin": "other"}])
def test_a_cosignature_is_of_one_tree(key, change):
    text = replace(TreeHead.parse(TEXT), **change).text()
    with pytest.raises(NoteError, match="does not verify"):
        key.verify(text.encode(), _line(key).signature)


@BOTH
def test_a_cosignature_of_another_length_is_refused(key):
    signature = _line(key).signature
    for wrong in (signature[:-1], signature + b"\0", b""):
        with pytest.raises(NoteError, match="length"):
            key.verify(TEXT.encode(), wrong)


@BOTH
def test_what_is_no_checkpoint_cannot_be_cosigned(key):
    with pytest.raises(NoteError):
        cosign("some text\n", key, NOW, SIGNERS[key])


def test_the_name_is_part_of_an_ml_dsa_44_cosignature():
    """Whoever lists the same public key under another name does not get its statements."""
    other = CosignerKey("another.test/w", COSIGNATURE_ML_DSA_44, PQ_KEY.public_key)
    with pytest.raises(NoteError, match="does not verify"):
        other.verify(TEXT.encode(), _line(PQ_KEY).signature)


def test_extension_lines_are_given_only_where_the_signature_covers_them():
    text = f"log\n1\n{base64.b64encode(bytes(32)).decode()}\nan extension\n"
    for kind, expected in ((COSIGNATURE_ED25519, ("an extension",)), (COSIGNATURE_ML_DSA_44, ())):
        private = CLASSIC if kind == COSIGNATURE_ED25519 else PQ
        key = CosignerKey("log", kind, private.public_key().public_bytes_raw())
        line = cosign(text, key, 0, private.sign)
        note = f"{text}\n{line.text()}".encode()
        assert open_checkpoint(note, key).extensions == expected


@pytest.mark.parametrize("time_s", [-1, 1 << 63])
def test_a_time_that_is_out_of_range_is_not_signed(time_s):
    with pytest.raises(NoteError, match="range"):
        _line(CLASSIC_KEY, time_s=time_s)


def test_a_time_that_is_out_of_range_is_not_believed():
    signature = b"\x80" + bytes(71)
    with pytest.raises(NoteError, match="range"):
        CLASSIC_KEY.verify(TEXT.encode(), signature)


@pytest.mark.parametrize(
    ("kind", "length"), [(0x04, 31), (0x06, 32), (0x06, 1311), (0x02, 32), (0x05, 32)]
)
def test_keys_of_other_types_and_lengths_are_refused(kind, length):
    with pytest.raises(NoteError):
        CosignerKey(NAME, kind, bytes(length))


def test_a_later_cosignature_of_a_key_takes_the_place_of_the_earlier():
    note = sign_checkpoint(7, bytes(32), LOG_KEY, LOG.sign)
    first, later = _line(PQ_KEY), _line(PQ_KEY, time_s=NOW + 1)
    merged = parse_note(add_lines(add_lines(note, [first]), [later]))
    assert [PQ_KEY.time_s(line.signature) for line in merged.lines[1:]] == [NOW + 1]
