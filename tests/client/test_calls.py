"""What every call gives, sync and async alike."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import math
import pickle
import subprocess
import sys
import uuid

import capsign
import jwt
import pytest
from capsign.inputs import selector_of
from capsign.reports import MOST, MOST_KEYS, Report, Reports
from capsign_wire.intents import new_intent_id
from cryptography.hazmat.primitives.serialization import load_pem_public_key


class Both:
    """Drives Signer and AsyncSigner with the same words."""

    def __init__(self, signer):
        self.signer = signer

    def __getattr__(self, name):
        method = getattr(self.signer, name)

        async def call(*args, **kwargs):
            result = method(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return call


@pytest.fixture(params=["sync", "async", "sync-unary", "async-unary"])
async def signer(request, agent):
    kind, _, unary = request.param.partition("-")
    both = Both(
        (capsign.Signer if kind == "sync" else capsign.AsyncSigner)(agent.path, coalesce=not unary)
    )
    yield both
    await both.close()


async def test_all_signatures_of_a_call_are_at_hand_the_first_one_first(signer, agent):
    """As a rollout has it that signs with two key versions: verifiers know one of them or both."""
    alone = await signer.sign(b"message", purpose="jwt", algorithm="ES256")
    assert alone.signatures == (alone,)
    agent.second_version = 7
    both = await signer.sign(b"message", purpose="jwt", algorithm="ES256")
    first, second = both.signatures
    assert first is both
    assert (first.key_version, second.key_version) == (1, 7)
    assert (second.value, second.intent_id, second.algorithm) == (b"2nd", both.intent_id, "ES256")
    assert second.leaf_index == first.leaf_index, "one leaf names both"
    resolved = await signer.resolve(both.intent_id, purpose="jwt")
    assert resolved.signature.algorithm == "ES256", "the answer says it, where the caller does not"


async def test_a_call_may_leave_its_algorithm_open(signer, agent):
    signature = await signer.sign(b"message", purpose="jwt")
    assert signature.algorithm in {"ES256", "Ed25519"}
    assert (await signer.verify(b"message", signature, purpose="jwt")).kid == signature.kid
    many = await signer.sign_many([b"one", b"two"], purpose="jwt")
    assert {one.algorithm for one in many} == {signature.algorithm}
    for more in ({"digest": bytes(32)}, {"message": bytes(65537)}):
        with pytest.raises(capsign.Refused):
            await signer.sign(**more, purpose="jwt")


async def test_signs_and_verifies(signer):
    signature = await signer.sign(b"message", purpose="jwt", algorithm="ES256")
    key = await signer.verify(b"message", signature, purpose="jwt")
    assert key.kid == signature.kid
    assert (signature.algorithm, signature.key_version, signature.custody) == (
        "ES256",
        1,
        "adapter-memory",
    )
    assert bytes(signature) == signature.value
    with pytest.raises(capsign.InvalidSignature) as caught:
        await signer.verify(b"other", signature, purpose="jwt")
    assert caught.value.reason == "SIGNATURE_INVALID"
    assert caught.value.advice


async def test_a_digest_is_signed_as_its_message_is(signer):
    signature = await signer.sign(
        digest=hashlib.sha256(b"m").digest(), purpose="jwt", algorithm="ES256"
    )
    await signer.verify(b"m", signature, purpose="jwt")


async def test_a_message_above_the_limit_is_hashed_here(signer):
    message = b"x" * 100_000
    signature = await signer.sign(message, purpose="jwt", algorithm="ES256")
    await signer.verify(
        digest=hashlib.sha256(message).digest(), message=None, signature=signature, purpose="jwt"
    )
    with pytest.raises(capsign.Refused) as caught:
        await signer.sign(message, purpose="mail", algorithm="Ed25519")
    assert (caught.value.reason, caught.value.field) == ("INPUT_TOO_LARGE", "message")


async def test_a_jwt_made_from_jose_is_accepted_by_pyjwt(signer):
    signing_input = (
        jwt.utils.base64url_encode(b'{"alg":"ES256"}')
        + b"."
        + jwt.utils.base64url_encode(b'{"sub":"a"}')
    )
    signature = await signer.sign(signing_input, purpose="jwt", algorithm="ES256")
    (key,) = await signer.public_keys(purpose="jwt", algorithm="ES256")
    token = (signing_input + b"." + jwt.utils.base64url_encode(signature.jose)).decode()
    assert jwt.decode(token, load_pem_public_key(key.pem.encode()), algorithms=["ES256"]) == {
        "sub": "a"
    }
    assert (key.state, key.activated_at.year) == ("active", 2023)


async def test_one_bad_item_leaves_its_neighbours_alone(signer, agent):
    results = await signer.sign_many(
        [b"a", b"x" * 70_000, b"c"], purpose="mail", algorithm="Ed25519"
    )
    assert [type(result).__name__ for result in results] == ["Signature", "Refused", "Signature"]
    await signer.verify(b"c", results[2], purpose="mail")


async def test_three_thousand_items_are_several_messages(signer):
    messages = [b"%d" % number for number in range(3000)]
    results = await signer.sign_many(messages, purpose="mail", algorithm="Ed25519")
    for number in (0, 1023, 1024, 2999):
        await signer.verify(messages[number], results[number], purpose="mail")
    assert await signer.sign_many([], purpose="mail", algorithm="Ed25519") == []


async def test_the_same_intent_gives_the_same_bytes(signer, agent):
    intent = uuid.UUID(bytes=new_intent_id())
    first = await signer.sign(b"m", purpose="jwt", algorithm="ES256", intent_id=intent)
    second = await signer.sign(b"m", purpose="jwt", algorithm="ES256", intent_id=intent.bytes)
    assert first == second
    assert agent.signed[intent.bytes] == 1


async def test_the_bytes_of_an_earlier_call_name_the_key_they_were_made_under(signer, agent):
    """An intent sent again after its key was rotated: the same bytes came back under the name of
    the new key.
    """
    old = await signer.sign(b"m", purpose="mail", algorithm="Ed25519")
    agent.key_version = 2
    assert (
        await signer.sign(b"m", purpose="mail", algorithm="Ed25519", intent_id=old.intent_id) == old
    )
    intents = [new_intent_id(), old.intent_id]
    new, again = await signer.sign_many(
        [b"n", b"m"], purpose="mail", algorithm="Ed25519", intent_ids=intents
    )
    assert (new.key_version, again) == (2, old)


async def test_resolve_tells_the_three_endings_apart(signer, agent):
    from capsign_wire.failures import FailureError
    from capsign_wire.types.v1 import failures_pb2 as reasons

    done = await signer.sign(b"m", purpose="jwt", algorithm="ES256")
    assert await signer.resolve(done.intent_id, purpose="jwt", algorithm="ES256") == capsign.Done(
        done
    )
    unseen = new_intent_id()
    assert await signer.resolve(unseen, purpose="jwt") == capsign.Never()
    with pytest.raises(capsign.Refused) as late:
        await signer.sign(b"m", purpose="jwt", algorithm="ES256", intent_id=unseen)
    assert late.value.reason == "INTENT_NEVER"
    agent.refuse(b"no", FailureError(reasons.REASON_USES_EXHAUSTED))
    with pytest.raises(capsign.Refused) as refused:
        await signer.sign(b"no", purpose="jwt", algorithm="ES256")
    ending = await signer.resolve(refused.value)
    assert ending.error.reason == "USES_EXHAUSTED"


async def test_handles_are_listed_as_values(signer):
    web, mail = await signer.handles()
    assert (web.grant, web.purpose, web.algorithms) == ("web-jwt", "jwt", ("ES256", "Ed25519"))
    assert web.protocols == (capsign.ProtocolRule("web", ("issuer",), ("1",)),)
    assert web.transcript == "forbidden"
    await signer.verify(
        b"m", await signer.sign(b"m", handle=mail, algorithm="Ed25519"), handle=mail.id
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"purpose": "tls"}, "no handle of this socket fits purpose='tls'"),
        ({}, "2 handles of this socket fit"),
        ({"purpose": "jwt", "grant": "web-mail"}, "no handle"),
    ],
)
async def test_a_handle_that_cannot_be_chosen_says_what_there_is(signer, arguments, text):
    with pytest.raises(capsign.HandleNotChosen) as caught:
        await signer.sign(b"m", algorithm="Ed25519", **arguments)
    assert text in str(caught.value)
    assert "grant='web-mail'" in str(caught.value)
    assert isinstance(caught.value, ValueError)


async def test_a_key_set_comes_as_the_adapter_wrote_it(signer, agent):
    agent.key_set = b'{"keys":[{"kid":"a"}]}'
    found = await signer.jwks(purpose="jwt")
    assert (found.body, found.max_age, found.sequence) == (agent.key_set, 60, agent.sequence)
    assert (found.etag, found.keys) == ('"an etag"', [{"kid": "a"}])


async def test_the_algorithm_breaks_a_tie(signer):
    assert await signer.sign(b"m", algorithm="ES256")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"algorithm": "none"}, "algorithm"),
        ({"algorithm": "Ed25519", "digest": bytes(32)}, "digest"),
        ({"algorithm": "ES256", "digest": bytes(31)}, "digest"),
        ({"algorithm": "ES256"}, "message"),
        ({"algorithm": "ES256", "message": b"", "intent_id": bytes(16)}, "intent_id"),
        ({"algorithm": "ES256", "message": b"", "protocol": "Web\n"}, "context.protocol"),
        ({"algorithm": "ES256", "message": b"", "transcript": b"short"}, "context.transcript"),
    ],
)
async def test_bad_arguments_never_leave_the_process(signer, agent, arguments, field):
    with pytest.raises(capsign.Refused) as caught:
        await signer.sign(purpose="jwt", **arguments)
    assert caught.value.field == field
    assert not agent.messages
    assert not agent.unary_calls


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("sign", {"message": 5}),
        ("sign", {"message": "text"}),
        ("sign", {"message": [1, 2]}),
        ("sign", {"digest": 32}),
        ("sign", {"message": b"", "transcript": 32}),
        ("sign_many", {"messages": b"abc"}),
        ("sign_many", {"digests": [32]}),
        ("verify", {"message": b"", "signature": 64}),
    ],
)
async def test_what_is_no_buffer_is_not_taken_for_one(signer, agent, method, arguments):
    """`bytes(5)` is five zeros: `sign(5)` signed them, and `sign_many(b"abc")` signed 97, 98 and 99
    of them.
    """
    with pytest.raises(TypeError):
        await getattr(signer, method)(purpose="jwt", algorithm="ES256", **arguments)
    assert not agent.ledger


async def test_any_buffer_is_taken(signer):
    signature = await signer.sign(
        memoryview(bytearray(b"m-e-")).cast("B")[::2], purpose="jwt", algorithm="ES256"
    )
    await signer.verify(
        bytearray(b"me"), memoryview(signature.value), purpose="jwt", algorithm="ES256"
    )


async def test_a_timeout_may_be_endless(signer):
    """The list of handles was there already: infinity came as far as the message that all callers
    share, and raised there.
    """
    await signer.handles()
    assert await signer.sign(b"m", purpose="jwt", algorithm="ES256", timeout=math.inf)


@pytest.mark.parametrize("kind", [capsign.Signer, capsign.AsyncSigner])
def test_a_window_that_lets_nothing_through_is_refused(agent, kind):
    with pytest.raises(ValueError, match="window"):
        kind(agent.path, window=0)


async def test_an_error_can_be_sent_to_another_process(signer):
    """One from a worker process could not be read by the pool it worked for, which broke the
    pool.
    """
    with pytest.raises(capsign.HandleNotChosen) as caught:
        await signer.sign(b"m", purpose="tls", algorithm="Ed25519")
    caught.value.add_note("seen")
    read = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # our own
    assert (type(read), str(read), vars(read)) == (
        capsign.HandleNotChosen,
        str(caught.value),
        vars(caught.value),
    )
    assert read.intent_id


async def test_resolving_an_error_elsewhere_keeps_its_algorithm(signer, agent):
    """`resolve(error, purpose=...)` gave a signature of no algorithm, so one without `jose`."""
    from capsign_wire.failures import FailureError
    from capsign_wire.types.v1 import failures_pb2 as reasons

    done = await signer.sign(b"m", purpose="jwt", algorithm="ES256")
    agent.plan("failure", failure=FailureError(reasons.REASON_COMMIT_UNKNOWN))
    with pytest.raises(capsign.Unknown) as caught:
        await signer.sign(b"m", purpose="jwt", algorithm="ES256", intent_id=done.intent_id)
    assert await signer.resolve(caught.value, purpose="jwt") == capsign.Done(done)


async def test_what_the_agent_refuses_is_refused(signer):
    with pytest.raises(capsign.Refused) as caught:
        await signer.sign(b"m", purpose="mail", algorithm="ES256")
    assert caught.value.reason == "ALGORITHM_NOT_ALLOWED"
    assert len(caught.value.intent_id) == 16


async def test_a_closed_signer_says_so(signer):
    await signer.close()
    with pytest.raises(RuntimeError, match="closed"):
        await signer.sign(b"m", purpose="jwt", algorithm="ES256")


def test_importing_the_package_loads_neither_grpc_nor_protobuf():
    code = (
        "import sys, capsign; print([m for m in ('grpc', 'google.protobuf', 'capsign_wire') "
        "if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def test_the_socket_comes_from_the_environment(agent, monkeypatch):
    monkeypatch.setenv("CAPSIGN_SOCKET", str(agent.path))
    signer = capsign.Signer()
    signature = signer.sign(b"...", purpose="jwt", algorithm="ES256")
    assert signature.value
    signer.close()
    monkeypatch.delenv("CAPSIGN_SOCKET")
    with pytest.raises(ValueError, match="CAPSIGN_SOCKET"):
        capsign.Signer()
    with pytest.raises(ValueError, match="not a Unix socket"):
        capsign.Signer("https://example.test")


async def test_reports_of_verifications_wait_for_company_and_are_told_at_the_end(signer, agent):
    """One RPC for each key, whatever the number of verifications: none of them waits for it."""
    for number in range(10):
        await signer.report_verification("k", number % 5 != 0, purpose="jwt", algorithm="ES256")
    await signer.report_verification("other", True, purpose="jwt", algorithm="ES256", count=3)
    await signer.close()
    told = sorted((each.kid, each.verified, each.failed) for each in agent.reports)
    assert told == [("k", 8, 2), ("other", 3, 0)]


async def test_many_reports_are_told_at_once(signer, agent):
    await signer.report_verification("k", True, purpose="jwt", algorithm="ES256", count=2_000)
    assert await asyncio.to_thread(agent.reported.wait, 20)
    assert agent.reports[0].verified == 2_000
    with pytest.raises(capsign.Refused):
        await signer.report_verification("k" * 65, True, purpose="jwt", algorithm="ES256")


def test_reports_are_bounded_and_those_that_can_never_be_told_are_dropped():
    reports = Reports()
    selector = selector_of("jwt", None, None, "ES256")
    full = [reports.add(Report(selector, f"k{number}", 1, 0)) for number in range(MOST_KEYS)]
    assert not any(full)
    assert reports.add(Report(selector, "one more", 4, 1))
    assert reports.dropped == 5
    taken = reports.take()
    assert len(taken) == MOST_KEYS
    assert reports.is_empty()
    reports.failed(taken[0], capsign.Unavailable("UPSTREAM_UNREACHABLE", "away"))
    assert reports.take() == [taken[0]]
    reports.failed(taken[0], capsign.Refused("NOT_FOUND", "no such key"))
    assert reports.is_empty()
    assert reports.dropped == 6
    reports.add(Report(selector, "k", MOST, 0))
    reports.add(Report(selector, "k", MOST, 7))
    assert reports.take() == [Report(selector, "k", MOST, 7)]
