"""AdmissionReviews, good, strange and hostile."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from capsign_injector.inject import inject
from capsign_injector.refusal import Reason
from capsign_injector.review import MAX_REVIEW_BYTES, MalformedReviewError, respond
from capsign_wire.settings import SettingsError
from hypothesis import given
from hypothesis import strategies as st
from support import json_patch
from support.injector_settings import BUNDLE, SETTINGS

POD: dict[str, Any] = {
    "metadata": {"generateName": "x-", "labels": {"capsign.dev/inject": "true"}},
    "spec": {"containers": [{"name": "app", "image": "a"}]},
}


def review(pod: Any = POD, **changes: Any) -> bytes:
    """As the API server sends it (the examples of the documentation of admission webhooks), with
    `changes` in the request.
    """
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "name": "x-1",
        "namespace": "shop",
        "operation": "CREATE",
        "userInfo": {"username": "admin", "groups": ["system:authenticated"]},
        "object": pod,
        "oldObject": None,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        "dryRun": False,
        **changes,
    }
    request = {key: value for key, value in request.items() if value != "absent"}
    return json.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    ).encode()


def answered(body: bytes) -> tuple[dict[str, Any], str, Reason | None]:
    answer = respond(body, SETTINGS, BUNDLE)
    document = json.loads(answer.body)
    assert (document["apiVersion"], document["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert document["response"]["uid"] == "705ab4f5-6393-11e8-b7cc-42010a800002"
    return document["response"], answer.outcome, answer.reason


@pytest.mark.parametrize("dry_run", [False, True, "absent"])
def test_a_pod_gets_a_patch_that_makes_it_the_injected_one(dry_run):
    response, outcome, _ = answered(review(dryRun=dry_run))
    assert (response["allowed"], response["patchType"], outcome) == (True, "JSONPatch", "injected")
    operations = json.loads(base64.b64decode(response["patch"], validate=True))
    assert json_patch.apply(POD, operations) == inject(POD, "shop", SETTINGS, BUNDLE).pod
    assert "warnings" not in response


def test_the_same_review_has_the_same_answer():
    assert respond(review(), SETTINGS, BUNDLE) == respond(review(), SETTINGS, BUNDLE)


def test_an_injected_pod_passes_as_it_is():
    response, outcome, _ = answered(review(inject(POD, "shop", SETTINGS, BUNDLE).pod))
    passed = {"uid": response["uid"], "allowed": True, "auditAnnotations": {"outcome": "injected"}}
    assert (response, outcome) == (passed, "injected")


def test_a_pod_that_did_not_ask_passes_as_it_is():
    response, outcome, _ = answered(review({"metadata": {}, "spec": {"hostPID": True}}))
    passed = {"uid": response["uid"], "allowed": True, "auditAnnotations": {"outcome": "unchanged"}}
    assert (response, outcome) == (passed, "unchanged")


def test_warnings_reach_whoever_applied_it():
    asked = {
        **POD,
        "metadata": {**POD["metadata"], "annotations": {"capsign.dev/contaners": "app"}},
    }
    response, _, _ = answered(review(asked))
    assert response["warnings"] == [
        "The annotation `capsign.dev/contaners` is not known and does nothing. Did you "
        "mean `capsign.dev/containers`?"
    ]


def test_a_refusal_says_which_field_and_what_to_do():
    response, outcome, reason = answered(review({**POD, "spec": {**POD["spec"], "hostPID": True}}))
    assert (response["allowed"], outcome, reason) == (False, "refused", Reason.ISOLATION)
    assert response["status"]["message"].endswith("Remove `hostPID`.")
    assert response["status"]["details"]["causes"][0]["field"] == "spec.hostPID"
    assert response["auditAnnotations"] == {
        "outcome": "refused",
        "reason": "isolation",
        "field": "spec.hostPID",
    }
    assert "patch" not in response


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({"name": "orders-1"}, "orders-1"),
        ({"generateName": "orders-7d9-"}, "orders-7d9-"),
        ({"ownerReferences": [{"kind": "Job", "name": "nightly"}]}, "nightly"),
        ({"ownerReferences": [7], "generateName": 7}, "(without a name)"),
        ({}, "(without a name)"),
    ],
)
def test_a_refusal_names_the_pod_as_people_know_it(metadata, name):
    """A controller's pods have no name yet: the events of thirty Deployments all said `The Pod ""
    is invalid`.
    """
    refused = {
        "metadata": {**metadata, "labels": {"capsign.dev/inject": "yes"}},
        "spec": POD["spec"],
    }
    status = answered(review(refused))[0]["status"]
    assert status["details"]["name"] == name
    assert status["message"].startswith(f"pod {name}: ")


def test_the_annotation_in_the_labels_place_is_told():
    metadata = {"annotations": {"capsign.dev/inject": "true"}}
    response, outcome, _ = answered(review({**POD, "metadata": metadata}))
    assert (response["allowed"], outcome) == (True, "unchanged")
    assert "move it to `metadata.labels`" in response["warnings"][0]


def test_the_profile_is_the_one_of_the_reviews_namespace():
    """The pod's own metadata is what its author wrote; the API server says where it goes."""
    metadata = {
        **POD["metadata"],
        "namespace": "treasury",
        "annotations": {"capsign.dev/profile": "treasury"},
    }
    response, _, reason = answered(review({**POD, "metadata": metadata}))
    assert (response["allowed"], reason) == (False, Reason.ANNOTATION)
    assert answered(review({**POD, "metadata": metadata}, namespace="treasury"))[0]["allowed"]


MALFORMED: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("text", b"hello"),
    ("a number", b"7"),
    ("a list", b"[]"),
    ("another object", b"{}"),
    ("not UTF-8", b'{"apiVersion": "\xff"}'),
    ("an old version", review().replace(b"admission.k8s.io/v1", b"admission.k8s.io/v1beta1")),
    ("another kind", review().replace(b'"AdmissionReview"', b'"ConversionReview"')),
    ("no request", b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}'),
    (
        "a response",
        b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": '
        b'{"uid": "x", "allowed": true}}',
    ),
    ("no uid", review(uid="absent")),
    ("an empty uid", review(uid="")),
    ("a long uid", review(uid="x" * 10_000)),
    ("a uid that is none", review(uid=7)),
    ("another resource", review(kind={"group": "apps", "version": "v1", "kind": "Deployment"})),
    ("a subresource", review(subResource="ephemeralcontainers")),
    ("an update", review(operation="UPDATE")),
    ("a deletion", review(operation="DELETE", object=None)),
    ("no object", review(object="absent")),
    ("a list for an object", review(object=[])),
    ("no namespace", review(namespace="")),
    ("dryRun that is text", review(dryRun="yes")),
    ("cut off", review()[:-5]),
    ("two documents", review() + review()),
    ("deep", b"[" * 100_000),
    (
        "deep in the pod",
        review().replace(b'"image": "a"', b'"image": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    ),
    ("large", b" " * (MAX_REVIEW_BYTES + 1)),
]


@pytest.mark.parametrize("body", [one[1] for one in MALFORMED], ids=[one[0] for one in MALFORMED])
def test_what_is_no_review_of_a_new_pod(body):
    with pytest.raises(MalformedReviewError) as caught:
        respond(body, SETTINGS, BUNDLE)
    assert len(str(caught.value)) < 120


def test_a_pod_nested_as_deep_as_json_may_be_passes_or_is_refused_but_breaks_nothing():
    for depth in (100, 300, 600, 900):
        deep = b'{"a":' * depth + b"1" + b"}" * depth
        body = review().replace(b'"image": "a"', b'"image": "a", "x": ' + deep)
        try:
            assert respond(body, SETTINGS, BUNDLE).outcome == "injected"
        except MalformedReviewError:
            assert depth > 300


def test_without_a_trust_bundle_no_pod_starts():
    for bundle in ("", "\n", "not PEM"):
        with pytest.raises(SettingsError, match="bundle"):
            respond(review(), SETTINGS, bundle)
    assert respond(review({"metadata": {}}), SETTINGS, "").outcome == "unchanged"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "metadata",
                        "spec",
                        "labels",
                        "annotations",
                        "containers",
                        "volumes",
                        "name",
                        "capsign.dev/inject",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_any_object_is_answered(value):
    """Whatever is in the place of the pod: an answer or a typed error, never a crash."""
    labelled = (
        {"metadata": {"labels": {"capsign.dev/inject": "true"}}, **value}
        if isinstance(value, dict)
        else value
    )
    for given_pod in (value, labelled):
        try:
            respond(review(given_pod), SETTINGS, BUNDLE)
        except MalformedReviewError:
            assert not isinstance(given_pod, dict)
