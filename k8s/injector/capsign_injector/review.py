"""From AdmissionReview (admission.k8s.io/v1) request to response. Pure.

There are three results: the input is no review (MalformedReviewError: the caller is no API server,
or is misconfigured), the pod is refused (a response with a sentence), or the pod passes with a
patch. Each response has the audit annotation `outcome`, and for a refusal `reason` and `field`; the
API server writes them into its audit log.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from capsign_wire.settings import SettingsError
from msgspec import Meta

from capsign_injector.build import patch
from capsign_injector.inject import inject
from capsign_injector.refusal import Reason, Refusal, shown
from capsign_injector.settings import Settings

MAX_REVIEW_BYTES = 7 * 1024 * 1024
"""Bytes of the largest review: twice the largest request that an API server accepts (3 MiB), and
its envelope.
"""

MAX_WARNING = 250
"""Most characters of a warning; the API server cuts at 256 (RFC 7234 warning headers)."""


class MalformedReviewError(Exception):
    """Not an AdmissionReview for the creation of a pod. The text repeats nothing of it."""


class _Kind(msgspec.Struct, frozen=True, kw_only=True):
    group: str
    version: str
    kind: str


class _Resource(msgspec.Struct, frozen=True, kw_only=True):
    group: str
    version: str
    resource: str


class _Request(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    uid: Annotated[str, Meta(min_length=1, max_length=128)]
    kind: _Kind
    resource: _Resource
    operation: str
    object: dict[str, Any]
    namespace: Annotated[str, Meta(min_length=1, max_length=253)]
    sub_resource: str = ""
    dry_run: bool = False


class _Review(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    api_version: Literal["admission.k8s.io/v1"]
    kind: Literal["AdmissionReview"]
    request: _Request


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of the response, and how to count it."""

    body: bytes
    outcome: Literal["injected", "unchanged", "refused"]
    reason: Reason | None
    """Why the pod was refused."""


def respond(body: bytes, settings: Settings, bundle_pem: str) -> Answer:
    """The response to a review. A dry run is answered in the same way, because there are no side
    effects.

    Raises MalformedReviewError for anything but a review of a new pod, and SettingsError if the
    trust bundle cannot be used, so that no pod starts with an agent that trusts nobody.
    """
    request = _request(body)
    pod = request.object
    try:
        result = inject(pod, request.namespace, settings, bundle_pem)
        if result.containers and settings.needs_bundle and not bundle_pem.strip():
            raise SettingsError(
                "The trust bundle is empty. See that the adapter has published it.",
                key="bundle_file",
            )
    except Refusal as refusal:
        audit = {"outcome": "refused", "reason": refusal.reason.value, "field": refusal.field}
        status = _status(refusal, called(pod))
        return Answer(
            _encode(request.uid, False, status=status, auditAnnotations=audit),
            "refused",
            refusal.reason,
        )
    operations = patch.diff(pod, result.pod)
    warnings = [
        text if len(text) <= MAX_WARNING else f"{text[: MAX_WARNING - 3]}..."
        for text in result.warnings
    ]
    outcome: Literal["injected", "unchanged"] = (
        "injected" if operations or result.containers else "unchanged"
    )
    about = {"warnings": warnings, "auditAnnotations": {"outcome": outcome}}
    if not operations:
        return Answer(_encode(request.uid, True, **about), outcome, None)
    encoded = base64.b64encode(msgspec.json.encode(operations)).decode()
    return Answer(
        _encode(request.uid, True, **about, patchType="JSONPatch", patch=encoded), outcome, None
    )


def _request(body: bytes) -> _Request:
    if len(body) > MAX_REVIEW_BYTES:
        raise MalformedReviewError(f"The body is larger than {MAX_REVIEW_BYTES} bytes.")
    try:
        request = msgspec.json.decode(body, type=_Review).request
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        kind = (
            "an AdmissionReview of admission.k8s.io/v1"
            if isinstance(error, msgspec.ValidationError)
            else "JSON"
        )
        raise MalformedReviewError(f"The body is not {kind}.") from None
    what = (
        request.kind.group,
        request.kind.version,
        request.kind.kind,
        request.resource.resource,
        request.sub_resource,
    )
    if what != ("", "v1", "Pod", "pods", "") or request.operation != "CREATE":
        raise MalformedReviewError(
            "The review is not for the creation of a pod. Correct the webhook's rules."
        )
    return request


def _encode(uid: str, allowed: bool, **more: Any) -> bytes:
    response = {
        "uid": uid,
        "allowed": allowed,
        **{key: value for key, value in more.items() if value},
    }
    return msgspec.json.encode(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
    )


def called(pod: dict[str, Any]) -> str:
    """How people know the pod: by its name; before the API server has made one, by its prefix or
    its owner.
    """
    metadata = pod.get("metadata")
    about: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
    owners = about.get("ownerReferences")
    owner = (
        next((one.get("name") for one in owners if isinstance(one, dict)), "")
        if isinstance(owners, list)
        else ""
    )
    name = about.get("name") or about.get("generateName") or owner
    return shown(name) if name and isinstance(name, str) else "(without a name)"


def _status(refusal: Refusal, name: str) -> dict[str, Any]:
    """A metav1.Status, of which kubectl prints message and name."""
    cause = {"reason": "FieldValueInvalid", "field": refusal.field, "message": refusal.sentence}
    details = {"kind": "Pod", "name": name, "causes": [cause]}
    return {
        "code": 422,
        "reason": "Invalid",
        "message": f"pod {name}: {refusal.sentence}",
        "details": details,
    }
