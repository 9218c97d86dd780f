"""C2SP tlog-policy: what is demanded of a checkpoint."""

import re

import pytest
from capsign_evidence.checkpoint import TreeHead, sign_checkpoint
from capsign_evidence.cosignature import COSIGNATURE_ED25519, CosignerKey, cosign
from capsign_evidence.note import Note, NoteError, SignatureLine, VerifierKey, add_lines, parse_note
from capsign_evidence.tlog_policy import PolicyError, QuorumError, parse_policy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from support.vectors import load

LOG = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LOG_KEY = VerifierKey("log.capsign.test/main", LOG.public_key().public_bytes_raw())
TEXT = TreeHead(LOG_KEY.name, 7, bytes(32)).text()
SIGNED = sign_checkpoint(7, bytes(32), LOG_KEY, LOG.sign)
NAMES = ("X1", "X2", "X3", "Y1", "Y2")
SECRETS = {
    name: Ed25519PrivateKey.from_private_bytes(bytes(31) + bytes((number,)))
    for number, name in enumerate(NAMES, 1)
}
KEYS = {
    name: CosignerKey(f"{name}.test", COSIGNATURE_ED25519, secret.public_key().public_bytes_raw())
    for name, secret in SECRETS.items()
}
LINES = {name: cosign(TEXT, KEYS[name], 100, SECRETS[name].sign) for name in NAMES}
HEAD = f"log {LOG_KEY.text()}\n" + "".join(
    f"witness {name} {KEYS[name].text()}\n" for name in NAMES
)
NESTED = (
    f"{HEAD}group X-witnesses 2 X1 X2 X3\ngroup Y-witnesses any Y1 Y2\n"
    "group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n"
)


def _cosigned(*names):
    return add_lines(SIGNED, [LINES[name] for name in names])


def test_a_policy_in_use_is_read():
    policy = parse_policy(load("cosignature")["policy"].encode())
    assert policy.quorum == "public"
    assert policy.groups["public"].least == 2
    assert [one.url.startswith("https://") for one in policy.witnesses.values()] == [True] * 3


@given(st.sets(st.sampled_from(NAMES)))
def test_groups_of_groups_count_as_the_specification_says(names):
    policy = parse_policy(NESTED.encode())
    enough = len(names & {"X1", "X2", "X3"}) >= 2 and bool(names & {"Y1", "Y2"})
    note = _cosigned(*names)
    if enough:
        cosigned = policy.open(note)
        assert cosigned.head.size == 7
        assert dict(cosigned.witnesses) == dict.fromkeys(names, 100)
    else:
        with pytest.raises(QuorumError) as refused:
            policy.open(note)
        assert set(refused.value.missing) == set(NAMES) - names


def test_no_quorum_demands_the_log_alone():
    assert parse_policy(f"{HEAD}quorum none\n".encode()).open(SIGNED).witnesses == {}


def test_a_policy_without_logs_takes_the_log_that_is_given():
    policy = parse_policy(b"quorum none\n")
    assert policy.open(SIGNED, LOG_KEY).head.size == 7
    with pytest.raises(NoteError, match="names no log"):
        policy.open(SIGNED)


def test_witnesses_alone_do_not_make_a_checkpoint():
    note = Note(TEXT, tuple(LINES.values())).encode()
    with pytest.raises(NoteError, match="no known key"):
        parse_policy(NESTED.encode()).open(note)


def test_a_wrong_cosignature_under_a_known_key_spoils_the_checkpoint():
    """Also where the others would be enough: somebody has touched it."""
    wrong = SignatureLine(KEYS["X3"].name, KEYS["X3"].key_id, bytes(72))
    note = add_lines(_cosigned("X1", "X2", "Y1"), [wrong])
    with pytest.raises(NoteError, match="does not verify"):
        parse_policy(NESTED.encode()).open(note)


def test_a_log_of_another_name_is_refused():
    other = VerifierKey("another.test/log", LOG_KEY.public_key)
    policy = parse_policy(f"log {other.text()}\nquorum none\n".encode())
    text = parse_note(SIGNED).text
    note = Note(text, (SignatureLine(other.name, other.key_id, LOG.sign(text.encode())),)).encode()
    with pytest.raises(NoteError, match="another log"):
        policy.open(note)


def test_white_space_comments_and_octets_that_are_no_utf8():
    text = (
        b"# h\xe9 \n\t \n  # more\n"
        + f"\twitness\t\u212a  {KEYS['X1'].text()} https://w.test/ \n".encode()
        + b"witness \xff "
        + KEYS["X2"].text().encode()
        + b"\nwitness K "
        + KEYS["X3"].text().encode()
        + b"\ngroup g 2 \xff K\nquorum g\n"
    )
    policy = parse_policy(text)
    assert len(policy.witnesses) == 3  # a Kelvin sign is not the letter K
    with pytest.raises(QuorumError, match=re.escape("\\udcff")):
        policy.open(_cosigned("X3"), LOG_KEY)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "no quorum line"),
        ("quorum none\nquorum none\n", "line 2: there are two quorum lines"),
        ("quorum W\n", "line 1: W is no witness or group"),
        ("quorum none", "does not end"),
        ("quorum\n", "line 1: quorum has 0 words"),
        ("policy\n", "line 1: a line begins with"),
        ("quorum none\r\n", "control characters"),
        (f"witness none {KEYS['X1'].text()}\n", "line 1: the name none is taken"),
        (f"witness W {LOG_KEY.text()}\n", "type 0x04 or 0x06"),
        (f"witness W {KEYS['X1'].text()[:-4]}\n", "does not belong"),
        (HEAD + f"log {LOG_KEY.text()}\n", "line 7: two logs have the same"),
        (
            f"witness A {KEYS['X1'].text()}\nwitness B "
            f"{CosignerKey('b', COSIGNATURE_ED25519, KEYS['X1'].public_key).text()}\n",
            "line 2: two witnesses have the same",
        ),
        (HEAD + "group g 0 X1\n", "can never be"),
        (HEAD + "group g 3 X1 X2\n", "can never be"),
        (HEAD + "group g some X1\n", "all, any or a decimal number"),
        (HEAD + "group g any\n", "at least one member"),
        (HEAD + "group g all X1 X1\n", "only once"),
        (HEAD + "group g all X1\ngroup h all X1 X2\n", "only once"),
        (HEAD + "group g all g\n", "no witness or group"),
        (HEAD + "group g all none\n", "no witness or group"),
        (HEAD + "group X1 all X2\n", "name X1 is taken"),
        (HEAD + f"log {LOG_KEY.text()} https://a b\n", "line 7: log has 3 words"),
    ],
)
def test_a_malformed_policy_says_which_line(lines, said):
    with pytest.raises(PolicyError, match=re.escape(said)):
        parse_policy(lines.encode())


def test_thirty_two_of_each_are_read_as_the_specification_recommends():
    keys = [
        CosignerKey(f"w{number}", COSIGNATURE_ED25519, number.to_bytes(32, "big"))
        for number in range(32)
    ]
    logs = [VerifierKey(f"l{number}", number.to_bytes(32, "big")) for number in range(32)]
    text = "".join(f"log {key.text()}\n" for key in logs)
    text += "".join(f"witness {key.name} {key.text()}\n" for key in keys)
    text += "".join(f"group g{number} all w{number}\n" for number in range(32))
    assert len(parse_policy(f"{text}quorum g31\n".encode()).groups) == 32


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9)))
def test_when_it_was_cosigned_is_what_a_whole_quorum_says(times):
    """One witness whose clock was ahead made every old receipt a new one."""
    policy = parse_policy(NESTED.encode())
    of_x, of_y = (
        sorted((at for name, at in times.items() if name[0] == group), reverse=True)
        for group in "XY"
    )
    enough = len(of_x) >= 2 and bool(of_y)
    assert policy.quorum_s(times) == (min(of_x[1], of_y[0]) if enough else 0)


def test_where_no_quorum_is_demanded_no_witness_says_when():
    policy = parse_policy(f"{HEAD}quorum none\n".encode())
    assert policy.quorum_s({"X1": 100}) == 0
    assert policy.open(_cosigned("X1")).quorum_s == 0
