"""I5: an intent id is bound to one fingerprint and has one outcome, whoever asks, how often, at
once, and whatever dies.

Everything signs with ES256, whose signatures differ each time they are made: equal bytes mean that
it was made once. Each check that the real adapter passes is also run on one whose ledger is broken
(`support.forgetful_adapter`), and must fail.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import capsign
import pytest
from capsign_evidence.leaf_reader import Never, Refused, Signed
from capsign_wire.failures import REASONS
from capsign_wire.intents import new_intent_id
from support.dev import Dev
from support.direct_adapter import DirectAdapter
from support.signed import only, only_of

CALLERS = 50
DIRECT = 6
"""Callers for each replica that have no agent: an adapter lets one certificate have only so many
streams.
"""
ROUNDS = 100
JWT = {"purpose": "jwt", "protocol": "jwt", "role": "issuer", "protocol_version": "1"}
SUFFIX = {"protocol": "jwt", "role": "issuer", "protocol_version": "1"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """One deployment with two replicas for all that breaks nothing."""
    deployment = Dev(tmp_path_factory.mktemp("pair"), workers=2)
    yield deployment
    deployment.close()


@pytest.fixture(scope="module")
def fragile(tmp_path_factory):
    """One deployment with one replica that is replaced: by broken ones, by dying ones."""
    deployment = Dev(tmp_path_factory.mktemp("fragile"))
    # The agent gives a call ten seconds; on a busy machine a new adapter may take longer to be
    # there.
    deployment.end(deployment.agent)
    deployment.start_agent(CAPSIGN_AGENT_UPSTREAM_TIMEOUT_MS="60000")
    deployment.wait_serving(deployment.about["agent"]["health"])
    yield deployment
    deployment.close()


def leaves_of(dev: Dev, intent_id: bytes) -> list[Signed | Refused | Never]:
    """What the log says about an intent."""
    return [
        entry
        for entry in dev.entries()
        if isinstance(entry, Signed | Refused | Never) and entry.intent_id == intent_id
    ]


def signed_once(dev: Dev, intent_id: bytes, value: bytes) -> bool:
    hashes = [leaf.signature_hash for leaf in leaves_of(dev, intent_id) if isinstance(leaf, Signed)]
    return hashes == [hashlib.sha256(value).digest()]


def refused(call: Callable[[], object]) -> str:
    """The reason for which this call is refused."""
    with pytest.raises(capsign.Refused) as caught:
        call()
    return caught.value.reason


# The checks: each takes a deployment, so that a broken one can be given to it.


def one_leaf_and_the_same_bytes_for_fifty_callers(dev: Dev) -> None:
    message, intent_id = b"pay 10 to alice", new_intent_id()
    together = threading.Barrier(CALLERS)
    replicas = [DirectAdapter(dev.about, number) for number in range(len(dev.about["adapters"]))]
    handles = [replica.handle("orders-jwt") for replica in replicas]
    signers = [capsign.Signer(dev.socket(), coalesce=number % 2 == 0) for number in range(4)]

    def through_the_agent(number: int) -> bytes:
        together.wait(30)
        signer = signers[number % len(signers)]
        return signer.sign(
            message, algorithm="ES256", intent_id=intent_id, timeout=30.0, **JWT
        ).value

    def direct(number: int) -> bytes:
        which = number % len(replicas)
        together.wait(30)
        answer = replicas[which].sign(
            handles[which], "ES256", intent_id, hashlib.sha256(message).digest(), **SUFFIX
        )
        return only(answer)

    without_agent = DIRECT * len(replicas)
    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [
            pool.submit(through_the_agent, number) for number in range(CALLERS - without_agent)
        ]
        calls += [pool.submit(direct, number) for number in range(without_agent)]
        values = [call.result(60) for call in calls]
    for one in (*replicas, *signers):
        one.__exit__(None, None, None)

    assert len(set(values)) == 1
    assert [type(leaf) for leaf in leaves_of(dev, intent_id)] == [Signed]
    assert signed_once(dev, intent_id, values[0])


def another_fingerprint_is_refused(dev: Dev) -> None:
    message, intent_id = b"pay 10 to alice", new_intent_id()
    digest = hashlib.sha256(message).digest()
    with capsign.Signer(dev.socket()) as signer, DirectAdapter(dev.about) as adapter:
        first = signer.sign(message, algorithm="ES256", intent_id=intent_id, **JWT)
        others = {
            "message": {"message": b"pay 99 to mallory", "algorithm": "ES256"} | JWT,
            "algorithm": {"message": message, "algorithm": "Ed25519"} | JWT,
            "context": {
                "message": message,
                "algorithm": "ES256",
                "purpose": "jwt",
                "protocol": "order-v2",
                "role": "buyer",
            },
            "role": {
                "message": message,
                "algorithm": "ES256",
                "purpose": "jwt",
                "protocol": "order-v2",
                "role": "seller",
            },
            "grant": {"message": message, "algorithm": "ES256", "purpose": "artifact"},
            "key": {"message": message, "algorithm": "ES256", "purpose": "root-es256"},
        }
        reasons = {
            what: refused(lambda given=given: signer.sign(intent_id=intent_id, **given))
            for what, given in others.items()
        }
        assert reasons == dict.fromkeys(others, "INTENT_CONFLICT")
        # An agent that does not look either: the ledger itself refuses.
        answer = adapter.sign(
            adapter.handle("orders-jwt"),
            "ES256",
            intent_id,
            hashlib.sha256(b"x").digest(),
            **SUFFIX,
        )
        assert REASONS[answer.failure.reason].name == "INTENT_CONFLICT"
        assert not answer.signatures
        # The one that came first stands, and the same request said in other words is the same
        # request.
        assert (
            signer.sign(digest=digest, algorithm="ES256", intent_id=intent_id, **JWT).value
            == first.value
        )
    assert signed_once(dev, intent_id, first.value)
    assert sum(isinstance(leaf, Refused) for leaf in leaves_of(dev, intent_id)) == len(others) + 1


def never_is_final(dev: Dev) -> None:
    intent_id = new_intent_id()
    with (
        capsign.Signer(dev.socket()) as signer,
        DirectAdapter(dev.about, len(dev.about["adapters"]) - 1) as adapter,
    ):
        assert signer.resolve(intent_id, purpose="jwt") == capsign.Never()
        # The late copy, by either way, as often as it comes.
        for _ in range(2):
            assert (
                refused(lambda: signer.sign(b"late", algorithm="ES256", intent_id=intent_id, **JWT))
                == "INTENT_NEVER"
            )
        late = adapter.sign(
            adapter.handle("orders-jwt"),
            "ES256",
            intent_id,
            hashlib.sha256(b"late").digest(),
            **SUFFIX,
        )
        assert REASONS[late.failure.reason].name == "INTENT_NEVER"
        assert not late.signatures
        assert signer.resolve(intent_id, purpose="jwt") == capsign.Never()
    kinds = [type(leaf) for leaf in leaves_of(dev, intent_id)]
    assert kinds == [Never, Refused, Refused, Refused]


def a_race_of_sign_and_resolve_has_one_winner(dev: Dev) -> None:
    outcomes: dict[bytes, bytes | None] = {}
    # Two signers: calls that share a stream would arrive in a fixed order.
    with (
        capsign.Signer(dev.socket()) as one,
        capsign.Signer(dev.socket()) as two,
        ThreadPoolExecutor(2) as pool,
    ):

        def sign(intent_id: bytes) -> bytes | None:
            answer = one.sign_many([b"race"], algorithm="ES256", intent_ids=[intent_id], **JWT)[0]
            if isinstance(answer, capsign.Signature):
                return answer.value
            assert (type(answer), answer.reason) == (capsign.Refused, "INTENT_NEVER")
            return None

        def resolve(intent_id: bytes) -> bytes | None:
            resolution = two.resolve(intent_id, purpose="jwt")
            assert isinstance(resolution, capsign.Done | capsign.Never)
            return resolution.signature.value if isinstance(resolution, capsign.Done) else None

        def together(
            call: Callable[[bytes], bytes | None], intent_id: bytes, start: threading.Barrier
        ) -> bytes | None:
            start.wait(30)
            return call(intent_id)

        for number in range(ROUNDS):
            intent_id, start = new_intent_id(), threading.Barrier(2)
            # Every tenth round is no race: one of the two is over before the other starts, so both
            # winners occur.
            if number % 20 == 0:
                signed = sign(intent_id)
                resolved = resolve(intent_id)
                assert signed is not None
            elif number % 20 == 10:
                resolved = resolve(intent_id)
                signed = sign(intent_id)
                assert resolved is None
            else:
                signing, resolving = [
                    pool.submit(together, call, intent_id, start) for call in (sign, resolve)
                ]
                signed, resolved = signing.result(60), resolving.result(60)
            assert signed == resolved, f"round {number}: the two callers were told different things"
            outcomes[intent_id] = signed
        for intent_id, value in outcomes.items():
            assert resolve(intent_id) == value
            assert sign(intent_id) == value
    log = dev.signed_intents()
    for intent_id, value in outcomes.items():
        assert log.get(intent_id, []) == ([] if value is None else [hashlib.sha256(value).digest()])


def test_i5_fifty_callers_of_one_intent_get_one_signature(pair):
    one_leaf_and_the_same_bytes_for_fifty_callers(pair)


def test_i5_an_intent_with_another_fingerprint_is_refused(pair):
    another_fingerprint_is_refused(pair)


def test_i5_an_unseen_intent_that_was_resolved_never_happens(pair):
    never_is_final(pair)


@pytest.mark.timeout(300)
def test_i5_sign_and_resolve_at_once_have_one_winner(pair):
    a_race_of_sign_and_resolve_has_one_winner(pair)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("lookup", one_leaf_and_the_same_bytes_for_fifty_callers),
        ("lookup", another_fingerprint_is_refused),
        ("lookup", never_is_final),
        ("release", one_leaf_and_the_same_bytes_for_fifty_callers),
        ("compare", another_fingerprint_is_refused),
        ("never", never_is_final),
        ("never", a_race_of_sign_and_resolve_has_one_winner),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_i5_a_broken_ledger_is_seen(fragile, how, check):
    fragile.replace_adapter(module="support.forgetful_adapter", CAPSIGN_TEST_FORGET=how)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(fragile)


def test_i5_intents_of_another_workload_do_not_exist(pair):
    message = b"mine"
    digest = hashlib.sha256(message).digest()
    with (
        capsign.Signer(pair.socket()) as signer,
        DirectAdapter(pair.about, client="app") as app,
        DirectAdapter(pair.about, 1, client="other") as other,
    ):
        foreign = other.handle("other-jwt")
        mine = signer.sign(message, algorithm="ES256", intent_id=new_intent_id(), **JWT)
        # The same id, message and key, said by another workload: a signature of its own.
        theirs = other.sign(foreign, "ES256", mine.intent_id, digest, **SUFFIX)
        assert theirs.signatures
        assert only(theirs) != mine.value
        assert only_of(other.resolve(foreign, mine.intent_id).done) == only(theirs)
        assert signer.resolve(mine.intent_id, purpose="jwt", algorithm="ES256") == capsign.Done(
            mine
        )
        # It cannot close what it never had, and its tombstone stops nobody else.
        second = signer.sign(message, algorithm="ES256", intent_id=new_intent_id(), **JWT)
        assert other.resolve(foreign, second.intent_id).HasField("never")
        assert (
            signer.sign(message, algorithm="ES256", intent_id=second.intent_id, **JWT).value
            == second.value
        )
        third = new_intent_id()
        assert other.resolve(foreign, third).HasField("never")
        assert app.sign(app.handle("orders-jwt"), "ES256", third, digest, **SUFFIX).signatures
    workloads = [leaf.group.workload.rsplit("/", 1)[1] for leaf in leaves_of(pair, mine.intent_id)]
    assert workloads == ["app", "other"]


def call_under_which_the_adapter_dies(
    dev: Dev, signer: capsign.Signer, step: str
) -> capsign.Unknown:
    """The call is over when the adapter is dead and its time is up: the agent would go on with the
    next adapter.
    """
    dying = dev.replace_adapter(module="support.crashing_adapter", CAPSIGN_TEST_CRASH=f"{step}:1")
    while True:
        try:
            signer.sign(b"order", algorithm="ES256", timeout=3.0, **JWT)
        except capsign.Unavailable:
            continue  # the agent has not found the new adapter yet
        except capsign.Unknown as error:
            assert dying.wait(30) == -9
            return error
        pytest.fail("the adapter that should have died has answered")


@pytest.mark.parametrize(
    ("step", "happened"),
    [("signed", False), ("committing", False), ("committed", True), ("released", True)],
)
def test_i5_after_kill_9_of_the_adapter_the_truth_can_be_had(fragile, step, happened):
    with capsign.Signer(fragile.socket(), timeout=30.0) as signer:
        asked, sent_again = (
            call_under_which_the_adapter_dies(fragile, signer, step) for _ in range(2)
        )
        fragile.replace_adapter()

        resolution = signer.resolve(asked, algorithm="ES256")
        assert isinstance(resolution, capsign.Done if happened else capsign.Never)
        retry = {"algorithm": "ES256", **JWT}
        if isinstance(resolution, capsign.Done):
            assert signer.sign(b"order", intent_id=asked.intent_id, **retry) == resolution.signature
            signer.verify(b"order", resolution.signature, **JWT)
            assert signed_once(fragile, asked.intent_id, resolution.signature.value)
        else:
            assert (
                refused(lambda: signer.sign(b"order", intent_id=asked.intent_id, **retry))
                == "INTENT_NEVER"
            )
            assert not any(isinstance(leaf, Signed) for leaf in leaves_of(fragile, asked.intent_id))

        # Before it is sent again the log says whether it happened; afterwards it has happened once,
        # and the answer is that once.
        before = [leaf.signature_hash for leaf in leaves_of(fragile, sent_again.intent_id)]
        assert len(before) == happened
        signature = signer.sign(b"order", intent_id=sent_again.intent_id, **retry)
        assert before in ([], [hashlib.sha256(signature.value).digest()])
        assert signed_once(fragile, sent_again.intent_id, signature.value)
        assert signer.resolve(sent_again, algorithm="ES256") == capsign.Done(signature)


@pytest.mark.parametrize("step", ["signed", "committed"])
def test_i5_a_call_under_which_the_adapter_dies_is_finished_by_the_next(fragile, step):
    """The caller sees a pause. What the dead adapter committed, the next one answers: the agent
    sent the same intent again.
    """
    fragile.replace_adapter()
    with capsign.Signer(fragile.socket(), timeout=30.0) as signer, ThreadPoolExecutor(1) as pool:
        signer.sign(b"the agent is connected", algorithm="ES256", **JWT)
        dying = fragile.replace_adapter(
            module="support.crashing_adapter", CAPSIGN_TEST_CRASH=f"{step}:1"
        )
        intent_id = new_intent_id()
        call = pool.submit(signer.sign, b"order", algorithm="ES256", intent_id=intent_id, **JWT)
        assert dying.wait(60) == -9
        before = [leaf.signature_hash for leaf in leaves_of(fragile, intent_id)]
        fragile.replace_adapter()
        value = call.result(60).value
    assert before == ([] if step == "signed" else [hashlib.sha256(value).digest()])
    assert signed_once(fragile, intent_id, value)


def test_i5_after_renewal_of_the_handle_and_kill_9_of_the_agent_the_bytes_are_the_same(short_dir):
    policy = short_dir / "policy.yaml"
    plain = (importlib.resources.files("capsign_cli.dev") / "policy.yaml").read_text()
    short = plain.replace("    purpose: artifact\n", "    purpose: artifact\n    ttl: 10s\n")
    assert short != plain
    policy.write_text(short)
    dev = Dev(short_dir / "d", arguments=("--policy", str(policy)))
    try:
        wanted = {"purpose": "artifact", "algorithm": "ES256"}
        with capsign.Signer(dev.socket()) as signer:
            first = signer.sign(b"release 1", **wanted)

            def expiry():
                return next(
                    handle.expires_at for handle in signer.handles() if handle.purpose == "artifact"
                )

            began, waiting = expiry(), threading.Event()
            while expiry() == began:
                waiting.wait(0.05)
            assert signer.sign(b"release 1", intent_id=first.intent_id, **wanted) == first
            assert signer.resolve(
                first.intent_id, purpose="artifact", algorithm="ES256"
            ) == capsign.Done(first)

            dev.end(dev.agent, 9)
            dev.start_agent()
            dev.wait_serving(dev.about["agent"]["health"])
            assert (
                signer.sign(b"release 1", intent_id=first.intent_id, timeout=30.0, **wanted)
                == first
            )
            assert (
                refused(lambda: signer.sign(b"release 2", intent_id=first.intent_id, **wanted))
                == "INTENT_CONFLICT"
            )
        assert signed_once(dev, first.intent_id, first.value)
    finally:
        dev.close()
