"""The servicers alone, by grpcio-testing: no socket, no TLS, no threads of a server. Identity is
put in by hand.

grpcio-testing drops the trailers of an aborted call, so a failure is known here by its status and
its advice; `test_services.py` reads the ErrorInfo over a real connection.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import grpc
import grpc_testing
import pytest
from capsign_adapter.decide.budget import Budget, UsedUpError
from capsign_adapter.decide.evidence_quota import MIB, REFUSAL_BYTES, EvidenceQuota
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.front import guard
from capsign_adapter.front.batch_telemetry import BatchTelemetry
from capsign_adapter.front.capability_servicer import MOST_NEWS, CapabilityServicer
from capsign_adapter.front.evidence_servicer import EvidenceServicer
from capsign_adapter.front.peer_quota import PeerQuota
from capsign_adapter.front.signing_servicer import SigningServicer
from capsign_adapter.front.streams import Streams
from capsign_adapter.sign.change_notifier import ChangeNotifier
from capsign_adapter.sign.clock import monotonic_ms, now_ms
from capsign_adapter.sign.key_sets import KeySets
from capsign_adapter.sign.revocation_barrier import RevocationBarrier
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_wire.adapter.v1 import admin_pb2, capability_pb2, evidence_pb2, signing_pb2
from capsign_wire.advice import advice_in
from capsign_wire.bounds import Unparsed
from capsign_wire.failures import REASONS, FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.telemetry import Metrics
from capsign_wire.tracing import PassingTracer
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2 as types
from support.adapter_rig import APP, AUDITOR, OTHER, POLICY, STRANGER, peer

SIGNING = signing_pb2.DESCRIPTOR.services_by_name["SigningService"]
CAPABILITY = capability_pb2.DESCRIPTOR.services_by_name["CapabilityService"]
EVIDENCE = evidence_pb2.DESCRIPTOR.services_by_name["EvidenceService"]


class Servicers:
    """Calls methods as a workload; `who` may be changed between calls."""

    def __init__(self, rig, monkeypatch) -> None:
        self.rig = rig
        self.who = APP
        monkeypatch.setattr(guard, "peer_of", lambda _: peer(self.who))
        places, streams = PeerQuota(rig.snapshots.policy, 32, Buckets(monotonic_ms), 100), Streams()
        barrier = RevocationBarrier(3000, 1000, lambda: rig.store.control().revocation_epoch)
        watch = BatchTelemetry(Metrics(), PassingTracer())
        signing = SigningServicer(
            rig.pipeline,
            rig.resolutions,
            rig.keys,
            streams,
            watch,
            places,
            rig.snapshots,
            barrier,
        )
        capability = CapabilityServicer(
            rig.mint,
            rig.handles,
            rig.budget,
            rig.snapshots,
            ChangeNotifier(),
            streams,
            places,
            lambda: 0,
        )
        evidence = EvidenceServicer(
            rig.snapshots.policy,
            rig.snapshots.standing,
            rig.store,
            rig.checkpoints,
            rig.quota,
            rig.budget,
        )
        servicers = {SIGNING: signing, CAPABILITY: capability, EVIDENCE: evidence}
        self.server = grpc_testing.server_from_dictionary(
            servicers, grpc_testing.strict_real_time()
        )

    def call(self, service, method: str, request):
        """The response, or how the call was ended without one."""
        running = self.server.invoke_unary_unary(service.methods_by_name[method], (), request, None)
        response, _, code, details = running.termination()
        return response if code is grpc.StatusCode.OK else Ended(code, details)


@dataclass
class Ended:
    """How a call was ended."""

    code: grpc.StatusCode
    details: str

    def because_of(self, reason: reasons.Reason.ValueType) -> bool:
        row = REASONS[reason]
        advice = advice_in(reason, self.details, row.advice)
        return self.code is row.status and self.details.endswith(advice)


@pytest.fixture
def servicers(rig, monkeypatch):
    return Servicers(rig, monkeypatch)


def test_handles_are_issued_for_the_grants_that_were_asked_for(servicers):
    request = capability_pb2.IssueHandlesRequest(grants=["thrice"])
    answer = servicers.call(CAPABILITY, "IssueHandles", request)
    assert [handle.grant for handle in answer.handles] == ["thrice"]
    assert answer.mint_public_key == servicers.rig.mint.public_key


def test_reports_of_agents_are_evidence_too(servicers):
    """Records that name no signature filled the disk as fast as they could be sent."""

    def submit(boot: bytes):
        record = evidence_pb2.AuditRecord(
            sequence=1, time_ms=1, kind=evidence_pb2.AUDIT_KIND_INTENT
        )
        batch = evidence_pb2.AuditBatch(boot_id=boot, records=[record]).SerializeToString()
        request = evidence_pb2.SubmitAuditRequest(batch=batch)
        return servicers.call(EVIDENCE, "SubmitAudit", request)

    assert submit(b"a" * 16).accepted_through == 1
    servicers.rig.quota.reserve(peer(), 1024 << 20)  # all of a day's, on credit
    size = servicers.rig.store.control().tree_size
    assert submit(b"b" * 16).because_of(reasons.REASON_RATE_LIMITED)
    assert servicers.rig.store.control().tree_size == size


@pytest.mark.parametrize(
    ("field", "most"), [("sequence", 1 << 53), ("time_ms", 1 << 53), ("other_sequence", 1 << 53)]
)
def test_a_record_counts_to_what_stores_and_calendars_can_hold(servicers, field, most):
    """A life that announced record 2^64-1 stopped reconciliation for everybody."""
    record = evidence_pb2.AuditRecord(sequence=1, kind=evidence_pb2.AUDIT_KIND_RECOVERED)
    setattr(record, field, most)
    batch = evidence_pb2.AuditBatch(boot_id=b"b" * 16, records=[record]).SerializeToString()
    failure = servicers.call(EVIDENCE, "SubmitAudit", evidence_pb2.SubmitAuditRequest(batch=batch))
    assert failure.because_of(reasons.REASON_INPUT_TOO_LARGE)
    assert field in failure.details


def test_a_grant_that_is_named_256_times_is_issued_once(servicers):
    """One grant named 256 times left others 8 % of their rate: so many handles were minted, and all
    but one were of no use.
    """
    minted = []
    servicers.rig.mint.instead(mint=lambda capability: minted.append(capability.grant) or b"token")
    answer = servicers.call(
        CAPABILITY,
        "IssueHandles",
        capability_pb2.IssueHandlesRequest(grants=["thrice", "slow"] * 128),
    )
    assert [handle.grant for handle in answer.handles] == minted == ["thrice", "slow"]


def test_handles_of_one_grant_are_renewed_once(servicers):
    """The same handle 256 times, or 256 handles of the same grant: each was verified and minted
    anew.
    """
    rig, read = servicers.rig, []
    tokens = [
        rig.handle("slow"),
        *([rig.handle("thrice")] * 100),
        *(rig.handle("thrice") for _ in range(20)),
    ]
    true = rig.verifier.read
    rig.verifier.instead(read=lambda token: read.append(token) or true(token))
    for _ in range(3):
        answer = servicers.call(
            CAPABILITY, "RenewHandles", capability_pb2.RenewHandlesRequest(tokens=tokens)
        )
        assert sorted(handle.grant for handle in answer.handles) == ["slow", "thrice"]
    assert len(read) == 22


def use_up(rig, who) -> None:
    """Whatever the budget of this peer's workload has."""
    with contextlib.suppress(UsedUpError):
        while True:
            rig.budget.charge(who, 1000)


def test_who_has_used_up_its_budget_gets_no_handle_minted(servicers):
    rig = servicers.rig
    use_up(rig, peer(APP))
    rig.mint.instead(mint=lambda _: pytest.fail("minted"))
    failure = servicers.call(
        CAPABILITY, "IssueHandles", capability_pb2.IssueHandlesRequest(grants=["thrice"])
    )
    assert failure.because_of(reasons.REASON_RATE_LIMITED)


def test_who_has_used_up_its_budget_gets_no_handle_renewed(servicers):
    """It is verified already, which costs nothing again; the new one is minted."""
    rig = servicers.rig
    request = capability_pb2.RenewHandlesRequest(tokens=[rig.handle("thrice")])
    assert len(servicers.call(CAPABILITY, "RenewHandles", request).handles) == 1
    use_up(rig, peer(APP))
    rig.mint.instead(mint=lambda _: pytest.fail("minted"))
    failure = servicers.call(CAPABILITY, "RenewHandles", request)
    assert failure.because_of(reasons.REASON_RATE_LIMITED)


def test_a_renewal_that_cannot_be_paid_is_no_loss_of_the_handle(servicers):
    """Left out of the answer, a handle counts as lost: whoever is over its budget is told to come
    again.
    """
    use_up(servicers.rig, peer(APP))
    request = capability_pb2.RenewHandlesRequest(tokens=[servicers.rig.handle("thrice")])
    assert servicers.call(CAPABILITY, "RenewHandles", request).because_of(
        reasons.REASON_RATE_LIMITED
    )


def test_keys_of_new_contexts_are_paid_before_they_are_derived(servicers):
    """Each transcript is a context of its own: a derivation and an attestation in the token for
    whoever makes one up.
    """
    rig = servicers.rig
    handle = rig.handle()
    ask = signing_pb2.GetPublicKeysRequest(
        handle=handle, algorithm=1, context=types.ContextSuffix(role="issuer")
    )
    assert len(servicers.call(SIGNING, "GetPublicKeys", ask).keys) == 1
    use_up(rig, peer(APP))
    rig.token.instead(hmac=lambda *_: pytest.fail("derived"))
    assert len(servicers.call(SIGNING, "GetPublicKeys", ask).keys) == 1, (
        "what is held costs nothing more"
    )
    ask.context.transcript = bytes(32)
    assert servicers.call(SIGNING, "GetPublicKeys", ask).because_of(reasons.REASON_RATE_LIMITED)


def asked_for_set(handle: bytes, **context) -> signing_pb2.GetJwksRequest:
    return signing_pb2.GetJwksRequest(handle=handle, context=types.ContextSuffix(**context))


def test_an_agent_gets_the_set_that_verifiers_fetch_and_is_known_to_have_it(servicers):
    rig, here = servicers.rig, types.ContextSuffix(role="issuer")
    told = servicers.call(SIGNING, "GetJwks", asked_for_set(rig.handle(), role="issuer"))
    public = KeySets(rig.keyring, rig.snapshots).of("demo", "orders-jwt", here)
    assert (told.key_set, told.etag) == (public.body, public.etag)
    assert (told.max_age_s, told.sequence) == (60, rig.snapshots.current.epoch)
    rig.key_readers.flush()
    (reader,) = rig.store.key_readers("demo", "orders")
    assert (reader.grant, reader.workload, reader.version) == ("orders-jwt", APP, 1)


@pytest.mark.parametrize("context", [{}, {"role": "issuer", "transcript": bytes(32)}])
def test_there_is_a_set_of_one_place_and_none_of_a_transcript(servicers, context):
    told = servicers.call(SIGNING, "GetJwks", asked_for_set(servicers.rig.handle(), **context))
    assert told.because_of(reasons.REASON_CONTEXT_NOT_ALLOWED)


def test_a_set_that_is_not_in_memory_is_paid_for_before_it_is_made(servicers):
    rig = servicers.rig
    issuer, audience = (asked_for_set(rig.handle(), role=role) for role in ("issuer", "audience"))
    told = servicers.call(SIGNING, "GetJwks", issuer)
    use_up(rig, peer(APP))
    rig.token.instead(hmac=lambda *_: pytest.fail("derived"))
    assert servicers.call(SIGNING, "GetJwks", issuer).key_set == told.key_set
    assert servicers.call(SIGNING, "GetJwks", audience).because_of(reasons.REASON_RATE_LIMITED)


def test_a_handle_that_was_revoked_gets_no_set(servicers):
    rig = servicers.rig
    asked = asked_for_set(rig.handle(), role="issuer")
    rig.store.revoke(admin_pb2.REVOCATION_KIND_GRANT, "orders-jwt", lambda _: b"leaf", now_ms())
    assert servicers.call(SIGNING, "GetJwks", asked).because_of(reasons.REASON_HANDLE_REVOKED)


def test_news_name_the_handle_that_was_revoked_last_however_many_there_are(servicers):
    """More handles were revoked than one piece of news holds, in rising order of their serials; the
    newest is not left out.
    """
    rig, numbers = servicers.rig, range(1, MOST_NEWS + 9)
    for number in numbers:
        serial = number.to_bytes(16, "big").hex()
        rig.store.revoke(admin_pb2.REVOCATION_KIND_HANDLE, serial, lambda _: b"leaf", now_ms())
    rig.snapshots.refresh()
    running = servicers.server.invoke_unary_stream(
        CAPABILITY.methods_by_name["Watch"], (), capability_pb2.WatchRequest(), None
    )
    told = [int.from_bytes(serial, "big") for serial in running.take_response().dropped_serials]
    running.cancel()
    assert told == list(reversed(numbers))[:MOST_NEWS]


@pytest.mark.parametrize(
    "change",
    [
        ('name: orders-jwt\n    tenant: demo\n    key: orders\n    workloads: ["' + APP, OTHER),
        ("ttl: 15m", "ttl: 1m"),
    ],
    ids=["the grant went to another workload", "handles live shorter"],
)
def test_a_stored_signature_does_not_leave_under_what_policy_took_back(rig, monkeypatch, change):
    """Signing again with the same intent gave no signature, and resolving it did. What was not
    signed is closed as before.
    """
    handle, intent = rig.handle(age_ms=120_000), new_intent_id()
    assert rig.sign(b"m", handle=handle, intents=[intent])[0].signatures
    old, new = change
    narrowed = POLICY.replace(old, old.replace(APP, new) if APP in old else new, 1)
    assert narrowed != POLICY
    rig.apply(narrowed)
    servicers = Servicers(rig, monkeypatch)

    def resolve(one: bytes):
        return servicers.call(
            SIGNING, "ResolveIntent", signing_pb2.ResolveIntentRequest(handle=handle, intent_id=one)
        )

    assert (
        rig.sign(b"m", handle=handle, intents=[intent])[0].failure.reason
        == reasons.REASON_COMMIT_UNKNOWN
    )
    assert resolve(intent).because_of(reasons.REASON_COMMIT_UNKNOWN)
    assert resolve(new_intent_id()).HasField("never")


def test_a_grant_of_another_workload_does_not_exist(servicers):
    failure = servicers.call(
        CAPABILITY, "IssueHandles", capability_pb2.IssueHandlesRequest(grants=["others"])
    )
    assert failure.because_of(reasons.REASON_NOT_FOUND)


def test_a_grant_that_policy_does_not_give_costs_the_others_nothing(servicers):
    """Agents ask for the grants of all their sockets at once. Policy withdrew that of one, and the
    refusal of the whole question took the handles of all others too.
    """
    asked = capability_pb2.IssueHandlesRequest(grants=["withdrawn", "thrice", "others"])
    answer = servicers.call(CAPABILITY, "IssueHandles", asked)
    assert [handle.grant for handle in answer.handles] == ["thrice"]


@pytest.mark.parametrize("method", ["GetCheckpoint", "GetTile", "SubmitAudit"])
def test_a_stranger_is_refused_everywhere(servicers, method):
    servicers.who = STRANGER
    request = {
        "GetCheckpoint": evidence_pb2.GetCheckpointRequest(),
        "GetTile": evidence_pb2.GetTileRequest(),
        "SubmitAudit": evidence_pb2.SubmitAuditRequest(batch=b"x"),
    }[method]
    assert servicers.call(EVIDENCE, method, request).because_of(reasons.REASON_IDENTITY_UNKNOWN)


def test_a_bound_that_is_broken_names_its_field(servicers):
    request = signing_pb2.ResolveIntentRequest(handle=servicers.rig.handle(), intent_id=b"short")
    failure = servicers.call(SIGNING, "ResolveIntent", request)
    assert failure.because_of(reasons.REASON_INPUT_MALFORMED)
    assert "intent_id" in failure.details


def test_what_is_no_message_is_refused_as_malformed(servicers):
    malformed = FailureError(reasons.REASON_INPUT_MALFORMED, "no message").to_item()
    failure = servicers.call(SIGNING, "GetPublicKeys", Unparsed(malformed))
    assert failure.because_of(reasons.REASON_INPUT_MALFORMED)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StoreUnavailableError("text-of-7f3a"), reasons.REASON_STORE_UNAVAILABLE),
        (CommitUnknownError("text-of-7f3b"), reasons.REASON_COMMIT_UNKNOWN),
        (RuntimeError("a defect with a secret in its text"), reasons.REASON_INTERNAL),
    ],
)
def test_every_exception_is_a_typed_failure_and_none_gives_its_text_away(
    servicers, error, reason, capsys
):
    def broken(*_, **__):
        raise error

    servicers.rig.store.instead(resolve=broken)
    request = signing_pb2.ResolveIntentRequest(
        handle=servicers.rig.handle(), intent_id=new_intent_id()
    )
    failure = servicers.call(SIGNING, "ResolveIntent", request)
    assert failure.because_of(reason)
    assert str(error) not in failure.details + capsys.readouterr().err


def test_a_stream_signs_and_ends_with_its_caller(servicers):
    item = signing_pb2.SignItem(intent_id=new_intent_id(), input=b"m")
    group = signing_pb2.SignGroup(
        algorithm=1, context=types.ContextSuffix(role="issuer"), items=[item]
    )
    request = signing_pb2.SignRequest(batch_id=7, handles=[servicers.rig.handle()], groups=[group])
    running = servicers.server.invoke_stream_stream(SIGNING.methods_by_name["Sign"], (), None)
    running.send_request(request)
    answer = running.take_response()
    assert answer.batch_id == 7
    assert answer.groups[0].items[0].signatures
    running.requests_closed()
    assert running.termination()[1] is grpc.StatusCode.OK


def batch_of_records(boot: bytes, first: int, count: int) -> evidence_pb2.SubmitAuditRequest:
    kind = evidence_pb2.AUDIT_KIND_INTENT
    records = [
        evidence_pb2.AuditRecord(sequence=first + index, time_ms=1, kind=kind)
        for index in range(count)
    ]
    return evidence_pb2.SubmitAuditRequest(
        batch=evidence_pb2.AuditBatch(boot_id=boot, records=records).SerializeToString()
    )


@pytest.mark.parametrize("fate", ["the store is away", "out of order", "taken before"])
def test_records_that_are_not_written_are_not_paid_for(rig, monkeypatch, fate):
    """Agents try again until it is taken: an outage of the store used up a day of evidence, and
    their records were refused.
    """
    written: list[str] = []
    rig.quota = EvidenceQuota(Buckets(lambda: 0), 1, 0, lambda kind, _: written.append(kind))
    servicers, true = Servicers(rig, monkeypatch), rig.store.submit_audit
    good, boot = batch_of_records(b"b" * 16, 1, 4000), b"b" * 16
    asked = good if fate != "out of order" else batch_of_records(boot, 9_000, 4000)

    def away(*_):
        raise StoreUnavailableError("away")

    if fate == "taken before":
        assert servicers.call(EVIDENCE, "SubmitAudit", good).accepted_through == 4000
    if fate == "the store is away":
        rig.store.instead(submit_audit=away)
    for _ in range(3 * MIB // len(asked.batch)):
        ended = servicers.call(EVIDENCE, "SubmitAudit", asked)
        assert not isinstance(ended, Ended) or not ended.because_of(reasons.REASON_RATE_LIMITED)
    rig.store.instead(submit_audit=true)
    assert servicers.call(EVIDENCE, "SubmitAudit", good).accepted_through == 4000
    assert written == ["reported"]


def test_an_intent_that_could_not_be_closed_is_not_paid_for(rig, monkeypatch):
    """A disk that is full lets intents be looked up and none be closed; agents ask until one is."""
    rig.quota = EvidenceQuota(Buckets(lambda: 0), 1)
    rig.join()
    rig.quota.reserve(peer(APP), MIB - 5 * REFUSAL_BYTES)
    servicers, true = Servicers(rig, monkeypatch), rig.store.resolve

    def full(*_):
        raise StoreUnavailableError("full")

    request = signing_pb2.ResolveIntentRequest(handle=rig.handle(), intent_id=new_intent_id())
    rig.store.instead(resolve=full)
    for _ in range(10):
        assert servicers.call(SIGNING, "ResolveIntent", request).because_of(
            reasons.REASON_STORE_UNAVAILABLE
        )
    rig.store.instead(resolve=true)
    assert servicers.call(SIGNING, "ResolveIntent", request).HasField("never")


def test_entries_are_for_auditors(servicers):
    request = evidence_pb2.GetEntriesRequest(width=1)
    assert servicers.call(EVIDENCE, "GetEntries", request).because_of(reasons.REASON_ROLE_MISSING)
    servicers.who = AUDITOR
    assert servicers.call(EVIDENCE, "GetEntries", request).entries


def test_records_are_charged_before_each_of_them_is_looked_at(rig, monkeypatch):
    """4,096 records of seven bytes were charged as 28 KiB and cost ten times as much: whoever
    signed beside eight such calls had a seventh of its rate.
    """
    rig.budget = Budget(rig.snapshots.policy, Buckets(lambda: 0), 1)
    servicers = Servicers(rig, monkeypatch)
    malformed = evidence_pb2.SubmitAuditRequest(
        batch=evidence_pb2.AuditBatch(
            boot_id=b"b" * 16, records=[evidence_pb2.AuditRecord(sequence=1)] * 4096
        ).SerializeToString()
    )
    assert servicers.call(EVIDENCE, "SubmitAudit", malformed).because_of(
        reasons.REASON_INPUT_MALFORMED
    ), "on credit"
    assert servicers.call(EVIDENCE, "SubmitAudit", malformed).because_of(
        reasons.REASON_RATE_LIMITED
    )


def telling(*records: dict[str, object]) -> evidence_pb2.SubmitAuditRequest:
    batch = evidence_pb2.AuditBatch(boot_id=b"b" * 16)
    for sequence, fields in enumerate(records, 1):
        batch.records.add(**{**MANY_CALLS, "sequence": sequence, **fields})
    return evidence_pb2.SubmitAuditRequest(batch=batch.SerializeToString(deterministic=True))


MANY_CALLS = {
    "kind": evidence_pb2.AUDIT_KIND_OUTCOME,
    "outcome": reasons.OUTCOME_DONE,
    "intent_id": b"i" * 16,
    "leaf_index_plus_one": 7,
    "more_intents": b"m" * 16 * 1023,
}


@pytest.mark.parametrize(
    "fields",
    [
        {"more_intents": b"m" * 17},
        {"intent_id": b""},
        {"kind": evidence_pb2.AUDIT_KIND_ALIVE},
        {"leaf_index_plus_one": 2**63 - 1},
    ],
    ids=["a part of an id", "no first", "of another kind", "beyond all leaves"],
)
def test_further_calls_of_a_record_are_whole_and_where_they_belong(servicers, fields):
    told = servicers.call(EVIDENCE, "SubmitAudit", telling(fields))
    assert told.because_of(reasons.REASON_INPUT_MALFORMED)
    assert "Further intents" in told.details


def test_a_batch_tells_of_as_many_calls_as_it_may_have_records(servicers):
    """Else it would cost its readers sixteen times of what they are bounded for."""
    assert servicers.call(EVIDENCE, "SubmitAudit", telling(*[{}] * 5)).because_of(
        reasons.REASON_INPUT_TOO_LARGE
    )
    too_long = telling({"more_intents": b"m" * 16 * 1024})
    assert servicers.call(EVIDENCE, "SubmitAudit", too_long).because_of(
        reasons.REASON_INPUT_TOO_LARGE
    )
    assert servicers.call(EVIDENCE, "SubmitAudit", telling(*[{}] * 4)).accepted_through == 4


def test_each_call_that_a_record_tells_of_is_charged(rig, monkeypatch):
    """As if it had a record of its own."""
    rig.budget = Budget(rig.snapshots.policy, Buckets(lambda: 0), 1)
    servicers = Servicers(rig, monkeypatch)
    assert servicers.call(EVIDENCE, "SubmitAudit", telling(*[{}] * 4)).accepted_through == 4
    assert servicers.call(EVIDENCE, "SubmitAudit", telling(*[{}] * 4)).because_of(
        reasons.REASON_RATE_LIMITED
    )
