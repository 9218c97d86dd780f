"""Builds the requests of both clients from the arguments of a call, and reads the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.algorithms import AlgorithmRow
from capsign_wire.bounds import check
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign.errors import CapsignError, Refused
from capsign.handle_selector import HandleSelector
from capsign.handles import context_suffix
from capsign.inputs import Buffer, IntentId, intent, item, payload
from capsign.jobs import Item
from capsign.receipts import Receipt
from capsign.reports import Report
from capsign.results import Done, Never, Resolution, Signature, WasRefused
from capsign.translate import exception, made, signature

LONGEST = 365 * 86400.0
"""Seconds; a longer timeout is cut to this, because locks and gRPC do not accept infinity."""


def seconds(given: float | None, default: float) -> float:
    """The timeout of a call, seconds. Raises ValueError unless it is above 0."""
    value = default if given is None else given
    if not value > 0:
        raise ValueError("timeout must be above 0 seconds")
    return min(value, LONGEST)


def messages_in_flight(window: int) -> int:
    """The window as given. Raises ValueError if it is below 1."""
    if window < 1:
        raise ValueError("window must be at least 1 message")
    return window


def concerning(error: CapsignError, intent_id: bytes, selector: HandleSelector) -> CapsignError:
    """The same error with the intent and selector that it concerns."""
    error.intent_id, error.selector = intent_id, selector
    return error


class Many:
    """The items of `sign_many`. An input with a bad argument has its result already and is not
    sent.
    """

    def __init__(
        self,
        row: AlgorithmRow | None,
        messages: Sequence[Buffer],
        digests: Sequence[Buffer],
        intent_ids: Sequence[IntentId] | None,
    ) -> None:
        if len(messages) and len(digests):
            raise ValueError("give messages or digests, one of the two")
        inputs = messages if len(messages) else digests
        if intent_ids is not None and len(intent_ids) != len(inputs):
            raise ValueError(f"there are {len(inputs)} inputs and {len(intent_ids)} intent ids")
        self.items: list[Item] = []
        self._refused: list[Refused | None] = []
        for index, data in enumerate(inputs):
            given = intent_ids[index] if intent_ids is not None else None
            try:
                self.items.append(
                    item(row, data, None, given) if len(messages) else item(row, None, data, given)
                )
                self._refused.append(None)
            except Refused as error:
                self._refused.append(error)

    def merged(
        self, outcomes: Sequence[Signature | CapsignError]
    ) -> list[Signature | CapsignError]:
        """One result for each input, in order."""
        rest = iter(outcomes)
        return [next(rest) if refused is None else refused for refused in self._refused]


def _checked(
    request: pb.VerifyRequest
    | pb.GetPublicKeysRequest
    | pb.GetJwksRequest
    | pb.ReportVerificationsRequest,
    selector: HandleSelector,
) -> None:
    try:
        check(request)
    except FailureError as error:
        raise exception(error, selector=selector) from None


def verification(
    selector: HandleSelector,
    row: AlgorithmRow,
    message: Buffer | None,
    digest: Buffer | None,
    signature: bytes,
) -> Callable[[str], pb.VerifyRequest]:
    data, is_digest = payload(row, message, digest)

    def build(handle_id: str) -> pb.VerifyRequest:
        request = pb.VerifyRequest(
            handle_id=handle_id,
            algorithm=row.number,
            signature=signature,
            context=context_suffix(selector),
        )
        if is_digest:
            request.digest = data
        else:
            request.message = data
        _checked(request, selector)
        return request

    return build


def report(
    selector: HandleSelector, row: AlgorithmRow, told: Report
) -> Callable[[str], pb.ReportVerificationsRequest]:
    def build(handle_id: str) -> pb.ReportVerificationsRequest:
        request = pb.ReportVerificationsRequest(
            handle_id=handle_id,
            algorithm=row.number,
            context=context_suffix(selector),
            kid=told.kid,
            verified=told.verified,
            failed=told.failed,
        )
        _checked(request, selector)
        return request

    return build


def key_query(
    selector: HandleSelector, row: AlgorithmRow
) -> Callable[[str], pb.GetPublicKeysRequest]:
    def build(handle_id: str) -> pb.GetPublicKeysRequest:
        request = pb.GetPublicKeysRequest(
            handle_id=handle_id, algorithm=row.number, context=context_suffix(selector)
        )
        _checked(request, selector)
        return request

    return build


def jwks_query(selector: HandleSelector) -> Callable[[str], pb.GetJwksRequest]:
    def build(handle_id: str) -> pb.GetJwksRequest:
        request = pb.GetJwksRequest(handle_id=handle_id, context=context_suffix(selector))
        _checked(request, selector)
        return request

    return build


def intent_parts(
    given: IntentId | CapsignError, selector: HandleSelector
) -> tuple[bytes, HandleSelector]:
    """The intent id, and the selector for it. An error has both; what is given as an argument
    counts first. Raises ValueError if the error concerns no intent.
    """
    if not isinstance(given, CapsignError):
        return intent(given), selector
    if not given.intent_id:
        raise ValueError("this error concerns no intent")
    known = given.selector or selector
    named = selector if selector.purpose or selector.grant or selector.handle else known
    return given.intent_id, replace(named, algorithm=selector.algorithm or known.algorithm)


def receipt_query(of: Signature | IntentId, leaf_index: int) -> pb.GetReceiptRequest:
    """The question for the receipt of a signature, or of an intent. Raises Refused for what is no
    intent id, ValueError for what is no index.
    """
    if isinstance(of, Signature):
        return pb.GetReceiptRequest(intent_id=of.intent_id, leaf_index=of.leaf_index)
    if not 0 <= leaf_index < 1 << 63:
        raise ValueError("leaf_index is 0 or above")
    return pb.GetReceiptRequest(intent_id=intent(of), leaf_index=leaf_index)


def receipt(response: pb.GetReceiptResponse, of: Signature | IntentId, intent_id: bytes) -> Receipt:
    """The receipt in the agent's answer."""
    return Receipt(
        text=response.receipt,
        entry=response.entry,
        log_key=response.verifier_key,
        intent_id=intent_id,
        signatures=of.signatures if isinstance(of, Signature) else (),
    )


def resolution_query(intent_id: bytes) -> Callable[[str], pb.ResolveIntentRequest]:
    return lambda handle_id: pb.ResolveIntentRequest(handle_id=handle_id, intent_id=intent_id)


def resolution(
    response: pb.ResolveIntentResponse, intent_id: bytes, selector: HandleSelector
) -> Resolution:
    """The resolution in the agent's answer. Raises CapsignError if there is none."""
    match response.WhichOneof("resolution"):
        case "done":
            group = response.done
            by, algorithm = made(group.signed_by), selector.algorithm
            signed = [signature(item, by, intent_id, algorithm) for item in group.items]
            if len(signed) == 1 and signed[0] is not None:
                return Done(signed[0])
        case "refused":
            error = exception(
                FailureError.from_item(response.refused), intent_id=intent_id, selector=selector
            )
            if isinstance(error, Refused):
                return WasRefused(error)
            raise error
        case "never":
            return Never()
    raise exception(
        FailureError(failures_pb2.REASON_INTERNAL, "The agent's answer is empty."),
        intent_id=intent_id,
        selector=selector,
    )
