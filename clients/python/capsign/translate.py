"""Translates the wire's failures and messages into exceptions and values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeAlias

import grpc
from capsign_wire.advice import Given
from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.algorithms import ALGORITHMS, CUSTODY_NAMES
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2

from capsign.errors import CapsignError, InvalidSignature, Refused, Unavailable, Unknown
from capsign.handle_selector import HandleSelector
from capsign.results import KeyHandle, KeySet, ProtocolRule, PublicKey, Signature, SignedBy

CLASSES: Mapping[int, type[CapsignError]] = MappingProxyType(
    {
        reasons.OUTCOME_REFUSED: Refused,
        reasons.OUTCOME_UNKNOWN: Unknown,
        reasons.OUTCOME_UNAVAILABLE: Unavailable,
    }
)
"""The exception for each outcome of the reason table."""

Reasons: TypeAlias = reasons.Reason.ValueType

_LOST, _BUG, _AWAY = (
    reasons.REASON_ANSWER_LOST,
    reasons.REASON_INTERNAL,
    reasons.REASON_UPSTREAM_UNREACHABLE,
)

STATUSES: Mapping[grpc.StatusCode, Reasons] = MappingProxyType(
    {
        # gRPC itself failed after the call may have been sent. Only where gRPC cannot have run the
        # call is it a refusal; everything else might have had its effect.
        grpc.StatusCode.OK: _LOST,  # the stream ended well, but without the answer
        grpc.StatusCode.CANCELLED: _LOST,
        grpc.StatusCode.UNKNOWN: _LOST,
        grpc.StatusCode.INVALID_ARGUMENT: reasons.REASON_INPUT_MALFORMED,
        grpc.StatusCode.DEADLINE_EXCEEDED: reasons.REASON_ANSWER_LATE,
        grpc.StatusCode.NOT_FOUND: reasons.REASON_NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS: _BUG,
        grpc.StatusCode.PERMISSION_DENIED: reasons.REASON_CALLER_NOT_ALLOWED,
        # also an answer above the size limit, after the effect
        grpc.StatusCode.RESOURCE_EXHAUSTED: _LOST,
        grpc.StatusCode.FAILED_PRECONDITION: _BUG,
        grpc.StatusCode.ABORTED: _LOST,
        grpc.StatusCode.OUT_OF_RANGE: _BUG,
        # whoever listens there is not an agent
        grpc.StatusCode.UNIMPLEMENTED: reasons.REASON_NOT_FOUND,
        grpc.StatusCode.INTERNAL: _BUG,
        grpc.StatusCode.UNAVAILABLE: _LOST,
        grpc.StatusCode.DATA_LOSS: _LOST,
        grpc.StatusCode.UNAUTHENTICATED: reasons.REASON_CALLER_NOT_ALLOWED,
    }
)
"""What a gRPC status without our ErrorInfo means, by code. gRPC itself made it, not the agent."""


_REQUEST_TOO_LARGE = re.compile(r"(?:SERVER: Received|CLIENT: Sent) message larger than max")
"""gRPC's messages for a request far above the bound; the agent's own code has not seen it then. For
an answer that is too large the message has the sizes the other way round, and the call may have had
its effect.
"""


class AgentAwayError(FailureError):
    """The agent could not be reached. It has the reason of an adapter that cannot be reached, and
    other advice. `lasting`: repeating the call cannot help.
    """

    ADVICE = (
        "See that the agent runs, that its socket is mounted into this container, and that "
        "this user may open it."
    )

    def __init__(self, text: str, *, advice: str = ADVICE, lasting: bool = False) -> None:
        super().__init__(_AWAY)
        self.advice = advice
        self.lasting = lasting
        self.detail = f"{text[:400]} {advice}"


class SignerClosedError(FailureError):
    """The signer was closed during the call, which is not repeated. `sent`: the call may have
    reached the agent.
    """

    ADVICE = "Use another signer; an intent id that is sent again gives the same bytes."

    def __init__(self, *, sent: bool) -> None:
        super().__init__(_LOST if sent else reasons.REASON_DRAINING)
        self.advice = self.ADVICE
        self.detail = f"This signer was closed. {self.advice}"


def failure_of(error: grpc.RpcError, *, effect: bool) -> FailureError:
    """The failure that a failed RPC stands for. `effect`: whether the call may have changed
    something; if not, its outcome is never unknown.
    """
    stated = FailureError.from_rpc(error)
    if stated is not None and (effect or stated.outcome != reasons.OUTCOME_UNKNOWN):
        return stated
    code = _code(error)
    detail = str(error.details() or "")[:200]
    reason = STATUSES[code]
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _REQUEST_TOO_LARGE.search(detail):
        said = f"gRPC says {detail}."
        return FailureError(reasons.REASON_INPUT_TOO_LARGE, said, given=Given.REQUEST)
    said = f"gRPC says {code.name}: {detail}."
    if not effect and (stated is not None or reason in {_LOST, _BUG, reasons.REASON_ANSWER_LATE}):
        return AgentAwayError(said)
    return FailureError(reason, said)


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    # Whatever a call raises also has the methods of a Call, but the base class does not say so.
    found: grpc.StatusCode = error.code()
    return found


def is_transport_loss(error: grpc.RpcError) -> bool:
    """Whether the connection broke, so that sending the same intent again may give its result."""
    broken = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    return FailureError.from_rpc(error) is None and _code(error) in broken


def after_loss(failure: FailureError) -> FailureError:
    """The failure of an intent of which an earlier copy was sent and its answer was lost.

    The agent's refusal holds for the copy that it answers; the lost copy may have been signed. Only
    INTENT_NEVER holds for both. An intent conflict does not: the ledger's row may be the lost copy,
    made before the key (which is part of ML-DSA's mu) or a pinned context changed.
    """
    if failure.outcome == reasons.OUTCOME_UNKNOWN or failure.reason == reasons.REASON_INTENT_NEVER:
        return failure
    return _answer_lost(failure.row.name, failure.detail)


def _answer_lost(reason: str, detail: str) -> FailureError:
    return FailureError(
        reasons.REASON_ANSWER_LOST,
        f"An answer was lost; the call sent again got {reason}: {detail[:200]}",
    )


def exception(
    failure: FailureError, *, intent_id: bytes = b"", selector: HandleSelector | None = None
) -> CapsignError:
    """The exception for a failure."""
    kind = CLASSES[failure.outcome]
    if failure.reason in {reasons.REASON_SIGNATURE_INVALID, reasons.REASON_SIGNATURE_MISSING}:
        kind = InvalidSignature
    return kind(
        failure.row.name,
        failure.detail,
        advice=failure.advice,
        field=failure.field,
        retry_after=failure.retry_after_ms / 1000,
        intent_id=intent_id,
        selector=selector,
    )


def instead(
    error: CapsignError, *, lost: bool, intent_id: bytes, selector: HandleSelector
) -> CapsignError:
    """The error of an intent that was not sent again because of `error`; `lost` as in
    `after_loss`.
    """
    if lost:
        return exception(
            _answer_lost(error.reason, error.message), intent_id=intent_id, selector=selector
        )
    return _of_intent(type(error), error, intent_id, selector)


def unresolved(error: CapsignError, intent_id: bytes, selector: HandleSelector) -> CapsignError:
    """The error of an intent that could not be resolved. Whatever the cause is, the intent's
    outcome stays unknown.
    """
    return _of_intent(Unknown, error, intent_id, selector)


def _of_intent(
    kind: type[CapsignError], error: CapsignError, intent_id: bytes, selector: HandleSelector
) -> CapsignError:
    return kind(
        error.reason,
        error.message,
        advice=error.advice,
        field=error.field,
        retry_after=error.retry_after,
        intent_id=intent_id,
        selector=selector,
    )


def _time(message: Any, name: str) -> datetime | None:
    if not message.HasField(name):
        return None
    found: datetime = getattr(message, name).ToDatetime(tzinfo=UTC)
    return found


def _names(numbers: Sequence[int]) -> tuple[str, ...]:
    """The names of these algorithms. Those that this version does not know are left out; it could
    not use them anyway.
    """
    return tuple(ALGORITHMS[number].name for number in numbers if number in ALGORITHMS)


def _enum_word(kind: Any, prefix: str, number: int) -> str:
    value = kind.DESCRIPTOR.values_by_number.get(number)
    return value.name.removeprefix(prefix).lower().replace("_", "-") if value else "unspecified"


def key_set(response: pb.GetJwksResponse) -> KeySet:
    return KeySet(response.key_set, response.max_age_s, response.sequence, response.etag)


def key_handle(handle: pb.KeyHandle) -> KeyHandle:
    rule = handle.context_rule
    word = _enum_word(signing_pb2.TranscriptRule, "TRANSCRIPT_RULE_", rule.transcript)
    return KeyHandle(
        id=handle.id,
        grant=handle.grant,
        purpose=handle.purpose,
        algorithms=_names(handle.algorithms),
        protocols=tuple(
            ProtocolRule(p.protocol, tuple(p.roles), tuple(p.versions)) for p in rule.protocols
        ),
        transcript="forbidden" if word == "unspecified" else word,
        expires_at=_time(handle, "expires_at"),
        rate_per_second=handle.rate_per_second,
        withdrawn=handle.withdrawn,
    )


def public_key(key: signing_pb2.PublicKey) -> PublicKey:
    return PublicKey(
        kid=key.kid,
        algorithm=ALGORITHMS[key.algorithm].name if key.algorithm in ALGORITHMS else "",
        spki=key.spki,
        version=key.version,
        state=_enum_word(signing_pb2.KeyState, "KEY_STATE_", key.state),
        context_digest=key.context_digest,
        attestation=key.attestation,
        activated_at=_time(key, "activated_at"),
        visible_since=_time(key, "visible_since"),
    )


Made: TypeAlias = tuple[str, SignedBy]
"""Algorithm and key of a signature. The algorithm is empty if this version does not know it."""


def made(messages: Iterable[signing_pb2.SignedBy]) -> list[Made]:
    """The keys under which the signatures of a group were made."""
    return [
        (ALGORITHMS[each.algorithm].name if each.algorithm in ALGORITHMS else "", _signed_by(each))
        for each in messages
    ]


def signature(
    item: signing_pb2.SignedItem, by: Sequence[Made], intent_id: bytes, algorithm: str
) -> Signature | None:
    """The item's first signature, with its further ones in `others`; None if none of them names its
    key. One leaf names them all. `algorithm` is the one that was asked for, used if the key's own
    is not known here.
    """
    first: Signature | None = None
    signatures, leaf = item.signatures, item.leaf_index
    for place in range(len(signatures) - 1, -1, -1):
        one = signatures[place]
        if not one.value or one.key >= len(by):
            return None
        name, made_under = by[one.key]
        others = () if first is None else first.signatures
        first = Signature(one.value, name or algorithm, intent_id, leaf, made_under, others)
    return first


def _signed_by(message: signing_pb2.SignedBy) -> SignedBy:
    return SignedBy(
        kid=message.kid,
        key_version=message.version,
        custody=CUSTODY_NAMES.get(message.custody, ""),
        policy_digest=message.policy_digest,
        context_digest=message.context_digest,
        attestation=message.attestation,
    )
