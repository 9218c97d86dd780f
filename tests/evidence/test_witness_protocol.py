"""C2SP tlog-witness: what is asked of a witness, and what it decides."""

import pytest
from capsign_evidence.checkpoint import TreeHead, sign_checkpoint
from capsign_evidence.cosignature import COSIGNATURE_ML_DSA_44, CosignerKey, cosign
from capsign_evidence.merkle import EMPTY_ROOT
from capsign_evidence.note import (
    NoteError,
    SignatureLine,
    VerifierKey,
    add_lines,
    open_note,
    parse_note,
)
from capsign_evidence.proofs import TreeReader
from capsign_evidence.witness_protocol import (
    MAX_REQUEST_LEN,
    AddCheckpoint,
    ConflictError,
    Held,
    RefusedError,
    admit,
    answer_of,
    authentic,
    origin_hash,
    read_answer,
    read_size,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from support.log_model import MemoryLog

LOG = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = VerifierKey("log.capsign.test/main", LOG.public_key().public_bytes_raw())
LOGS = {KEY.name: (KEY,)}
PQ = MLDSA44PrivateKey.from_seed_bytes(bytes(32))
WITNESS = CosignerKey("w.capsign.test", COSIGNATURE_ML_DSA_44, PQ.public_key().public_bytes_raw())
SIZE = 40
TREE = MemoryLog()
TREE.append([bytes((number,)) for number in range(SIZE)])


def _root(size):
    return TreeReader(TREE.hashes, size).root() if size else EMPTY_ROOT


def _request(old, new, **other):
    proof = TreeReader(TREE.hashes, new).consistency(old) if 0 < old <= new else []
    note = sign_checkpoint(new, other.get("root", _root(new)), KEY, LOG.sign)
    return AddCheckpoint(old, tuple(other.get("proof", proof)), note)


def _decided(request, held):
    head, _ = authentic(request, LOGS)
    admit(request, head, held)
    return head


@given(st.tuples(*[st.integers(0, SIZE)] * 3))
def test_a_witness_goes_forward_only_and_from_where_it_is(sizes):
    held, old, new = sizes
    request = _request(old, new)
    if old > new:
        with pytest.raises(RefusedError) as refused:
            _decided(request, Held(held, _root(held)))
        assert refused.value.status == 400
    elif old != held:
        with pytest.raises(ConflictError) as conflict:
            _decided(request, Held(held, _root(held)))
        assert conflict.value.size == held
        assert read_size(str(conflict.value).encode()) == held
    else:
        assert _decided(request, Held(held, _root(held))).size == new


@pytest.mark.parametrize(
    ("request_", "held"),
    [
        (_request(7, 7, root=bytes(32)), 7),
        (_request(7, 9, proof=[bytes(32)]), 7),
        (_request(7, 9, root=bytes(32)), 7),
        (_request(7, 7, proof=[bytes(32)]), 7),
        (_request(0, 9, proof=[bytes(32)]), 0),
        (_request(0, 0, root=bytes(32)), 0),
    ],
    ids=["other root", "wrong proof", "fork", "needless proof", "proof from nothing", "not empty"],
)
def test_what_is_not_consistent_is_unprocessable(request_, held):
    with pytest.raises(RefusedError) as refused:
        _decided(request_, Held(held, _root(held)))
    assert refused.value.status == 422


def test_a_log_that_is_not_known_is_not_found():
    with pytest.raises(RefusedError) as refused:
        authentic(_request(0, 3), {})
    assert refused.value.status == 404


@pytest.mark.parametrize("damage", ["unsigned", "wrong"])
def test_what_the_log_did_not_sign_is_forbidden(damage):
    request = _request(0, 3)
    note = parse_note(request.checkpoint)
    other = SignatureLine("other", b"1234", b"signature")
    wrong = SignatureLine(KEY.name, KEY.key_id, bytes(64))
    line = other if damage == "unsigned" else wrong
    forged = (note.text + "\n" + line.text()).encode()
    with pytest.raises(RefusedError) as refused:
        authentic(AddCheckpoint(0, (), forged), LOGS)
    assert refused.value.status == 403


def test_extension_lines_that_the_log_did_not_sign_are_forbidden():
    """An ML-DSA-44 signature of the log says nothing about them, and ours would."""
    private = MLDSA44PrivateKey.from_seed_bytes(bytes(32))
    key = CosignerKey(KEY.name, COSIGNATURE_ML_DSA_44, private.public_key().public_bytes_raw())
    honest = parse_note(_request(0, 3).checkpoint)
    text = honest.text + "an extension\n"
    line = cosign(text, key, 1_800_000_000, private.sign)
    forged = AddCheckpoint(0, (), (text + "\n" + line.text()).encode())
    with pytest.raises(RefusedError, match="extension") as refused:
        authentic(forged, {KEY.name: [KEY, key]})
    assert refused.value.status == 403
    plain = AddCheckpoint(0, (), (honest.text + "\n" + line.text()).encode())
    assert authentic(plain, {KEY.name: [KEY, key]})[0].size == 3


def test_signatures_of_others_are_not_kept():
    request = _request(0, 3)
    more = add_lines(request.checkpoint, [SignatureLine("other", b"1234", b"signature")])
    assert authentic(AddCheckpoint(0, (), more), LOGS)[1] == request.checkpoint


@given(st.integers(0, SIZE), st.data())
def test_a_request_is_read_as_it_was_written(new, data):
    request = _request(data.draw(st.integers(0, new)), new)
    assert AddCheckpoint.parse(request.encode()) == request


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n",
        b"\n\nx",
        b"old\n\n",
        b"old 00\n\nx",
        b"old -1\n\nx",
        b"old  1\n\nx",
        b"old 9223372036854775808\n\nx",
        b"new 1\n\nx",
        b"1\n\nx",
        b"old 1\nAAAA\n\nx",
        b"old 1\n?\n\nx",
        b"old 1\n\xff\n\nx",
        b"old 1\n" + b"A" * 43 + b"=\n" + b"\nnot a checkpoint\n",
        b"old 1\n" + (b"A" * 43 + b"=\n") * 64 + b"\nx",
        b"x" * (MAX_REQUEST_LEN + 1),
    ],
)
def test_a_malformed_request_is_a_bad_one(body):
    with pytest.raises(RefusedError) as refused:
        authentic(AddCheckpoint.parse(body), LOGS)
    assert refused.value.status == 400


def test_the_example_of_the_specification_is_read():
    body = (
        b"old 20852014\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n"
        b"jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\nexample.com/behind-the-sofa\n20852163\n"
    )
    request = AddCheckpoint.parse(body)
    assert (request.old_size, len(request.proof)) == (20_852_014, 2)
    assert request.encode() == body


def test_an_answer_holds_the_witness_that_was_asked():
    checkpoint = _request(0, 3).checkpoint
    text = parse_note(checkpoint).text
    line = cosign(text, WITNESS, 77, PQ.sign)
    stranger = SignatureLine("stranger", b"1234", b"signature")
    found = read_answer(answer_of([stranger, line]), checkpoint, [WITNESS])
    assert found == [line]
    assert open_note(add_lines(checkpoint, found), [WITNESS]).text == text


@pytest.mark.parametrize("bad", ["none", "no time", "another tree", "malformed"])
def test_an_answer_without_a_cosignature_is_none(bad):
    checkpoint = _request(0, 3).checkpoint
    text = parse_note(checkpoint).text
    answers = {
        "none": answer_of([SignatureLine("stranger", b"1234", b"signature")]),
        "no time": answer_of([cosign(text, WITNESS, 0, PQ.sign)]),
        "another tree": answer_of(
            [cosign(TreeHead(KEY.name, 4, _root(4)).text(), WITNESS, 77, PQ.sign)]
        ),
        "malformed": b"<html>",
    }
    with pytest.raises(NoteError):
        read_answer(answers[bad], checkpoint, [WITNESS])


@pytest.mark.parametrize("body", [b"", b"x\n", b"01\n", b"-1\n", b"1\n\n", b"\xff", b"1 \n"])
def test_a_conflict_without_a_size_is_not_believed(body):
    with pytest.raises(NoteError):
        read_size(body)


def test_the_path_of_a_log_is_its_origin_hashed():
    hashed = "4e08c70cc7f225871fda7dc115566008e6954b26a25896be01faa45cdd0f63eb"
    assert origin_hash("example.com/log42") == hashed
