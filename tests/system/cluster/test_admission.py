"""The webhook in bad company: absent, rotating, losing a replica, asked by a thousand, and asked
what is no review.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pytest
from system.cluster.fleet import DEVELOPER, INJECT, SHOP, SYSTEM
from system.cluster.kit import manifests
from system.cluster.kit.cluster import until

PODS = f"/api/v1/namespaces/{SHOP}/pods"
DRY = f"{PODS}?dryRun=All"
WEBHOOK = "capsign-injector-capsign-system"
INJECTOR = f"/api/v1/namespaces/{SYSTEM}/services/https:capsign-injector:443/proxy"


def pod(fleet, name="asked", labels=INJECT, **more):
    container = manifests.python("app", "import time; time.sleep(600)", fleet.image)
    return manifests.pod(
        name,
        SHOP,
        manifests.pod_spec(container, serviceAccountName="orders"),
        labels=labels,
        **more,
    )


class Admissions:
    """Labelled pods, admitted one after the other by two callers until the end of the block. All
    that went wrong is kept.
    """

    def __init__(self, fleet) -> None:
        self._api = fleet.cluster.api
        self._pod = pod(fleet)
        self._done = threading.Event()
        self._callers = [threading.Thread(target=self._ask) for _ in range(2)]
        self.count = 0
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        for caller in self._callers:
            caller.start()
        until(lambda: self.count > 10, "the first admissions")
        return self

    def __exit__(self, *_: object) -> None:
        before = self.count
        until(lambda: self.count > before + 10, "the last admissions")
        self._done.set()
        for caller in self._callers:
            caller.join()

    def _ask(self) -> None:
        while not self._done.is_set():
            status, text = self._api.ask("POST", DRY, self._pod)
            if status != 201 or "capsign-agent" not in text:
                self.faults.append(f"{status} {text[:500]}")
            self.count += 1


def audited(fleet, name: str) -> dict[str, Any]:
    """The event of the API server's audit log about the pod of this name, once it is written: that
    is after the answer.
    """

    def event() -> dict[str, Any] | None:
        return next(
            (
                one
                for one in fleet.cluster.audited()
                if one.get("objectRef", {}).get("name") == name
            ),
            None,
        )

    return until(event, f"an audit event of the pod {name}")


def injectors(fleet) -> list[str]:
    pods = fleet.kubectl.get("pod", "", SYSTEM, **{"app.kubernetes.io/component": "injector"})[
        "items"
    ]
    return [one["metadata"]["name"] for one in pods if "deletionTimestamp" not in one["metadata"]]


def authorities(fleet) -> list[bytes]:
    """The certificates that API servers trust the webhook by, as the configuration has them."""
    configuration = fleet.kubectl.get("mutatingwebhookconfiguration", WEBHOOK)
    bundle = base64.b64decode(configuration["webhooks"][0]["clientConfig"]["caBundle"])
    return [part for part in bundle.split(b"-----END CERTIFICATE-----\n") if part.strip()]


def test_with_the_webhook_down_labelled_pods_are_refused_and_others_untouched(fleet):
    fleet.kubectl("scale", "deployment/capsign-injector", "--replicas=0", f"--namespace={SYSTEM}")
    try:
        selector = "--selector=app.kubernetes.io/component=injector"
        fleet.kubectl(
            "wait", "--for=delete", "pod", selector, f"--namespace={SYSTEM}", "--timeout=180s"
        )
        words = fleet.developer.refused(
            "create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod(fleet))
        )
        assert 'failed calling webhook "inject.capsign.dev"' in words
        assert "capsign-injector" in words
        began = time.monotonic()
        status, text = fleet.cluster.api.ask("POST", DRY, pod(fleet, labels={}))
        assert (status, "capsign-agent" in text) == (201, False)
        assert time.monotonic() - began < 5  # nobody waited for the webhook: its own timeout is 5 s
    finally:
        fleet.kubectl(
            "scale", "deployment/capsign-injector", "--replicas=2", f"--namespace={SYSTEM}"
        )
        fleet.wait_ready()


def test_no_admission_fails_while_the_certificate_and_its_authority_rotate(fleet):
    before = authorities(fleet)
    assert len(before) == 1
    with Admissions(fleet) as admissions:
        command = (
            "annotate",
            "secret",
            "capsign-injector-tls",
            f"--namespace={SYSTEM}",
            "--overwrite",
        )
        fleet.kubectl(*command, f"capsign.dev/rotate={time.time():.0f}")
        until(lambda: len(authorities(fleet)) == 2, "both authorities in the webhook configuration")
        until(lambda: before[0] not in authorities(fleet), "the end of the old authority")
    assert admissions.faults == []


def test_no_admission_fails_while_a_replica_leaves(fleet):
    """Its successor cannot come while the node is cordoned, so that one replica alone has all the
    work for a while.
    """
    first = injectors(fleet)[0]
    with Admissions(fleet) as admissions:
        fleet.kubectl("cordon", "node")
        try:
            fleet.kubectl("delete", "pod", first, f"--namespace={SYSTEM}", "--timeout=180s")
        finally:
            fleet.kubectl("uncordon", "node")
        fleet.wait_ready()
    assert admissions.faults == []


def test_no_admission_fails_while_the_injector_is_rolled(fleet):
    with Admissions(fleet) as admissions:
        fleet.kubectl("rollout", "restart", "deployment/capsign-injector", f"--namespace={SYSTEM}")
        fleet.wait_ready()
    assert admissions.faults == []


# --- what an annotation may say ---


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"capsign.dev/profile": "root"}, ["capsign.dev/profile", "root"]),
        ({"capsign.dev/memory-limit": "64Gi"}, ["capsign.dev/memory-limit"]),
        ({"capsign.dev/cpu-request": "64"}, ["capsign.dev/cpu-request"]),
        ({"capsign.dev/containers": "nobody"}, ["capsign.dev/containers", "nobody"]),
        ({"capsign.dev/log-level": "loud"}, ["capsign.dev/log-level"]),
        ({"capsign.dev/profile.nobody": "default"}, ["capsign.dev/profile.nobody"]),
    ],
)
def test_an_annotation_that_says_too_much_refuses_the_pod_in_words(fleet, annotations, words):
    name = words[0].replace("/", ".")
    asked = json.dumps(pod(fleet, name, annotations=annotations))
    said = fleet.developer.refused("create", "--dry-run=server", "-f", "-", stdin=asked)
    assert all(word in said for word in words), said
    event = audited(fleet, name)
    assert event["user"]["username"] == DEVELOPER
    assert event["responseStatus"]["code"] == 422
    about = {
        key: event["annotations"][f"inject.capsign.dev/{key}"]
        for key in ("outcome", "reason", "field")
    }
    assert about == {
        "outcome": "refused",
        "reason": "annotation",
        "field": f"metadata.annotations[{words[0]}]",
    }


def test_an_unknown_annotation_is_a_warning_to_who_applies(fleet):
    asked = json.dumps(pod(fleet, annotations={"capsign.dev/profil": "default"}))
    done = fleet.developer.run("create", "--dry-run=server", "-f", "-", stdin=asked)
    assert done.returncode == 0
    assert "Warning:" in done.stderr
    assert "capsign.dev/profil" in done.stderr


def test_a_deleted_certificate_is_made_anew_at_once(fleet):
    before = authorities(fleet)
    fleet.kubectl("delete", "secret", "capsign-injector-tls", f"--namespace={SYSTEM}")

    def made() -> bool:
        asked = fleet.kubectl.run(
            "get", "secret", "capsign-injector-tls", f"--namespace={SYSTEM}", "--output=json"
        )
        return asked.returncode == 0 and "tls.key" in json.loads(asked.stdout).get("data", {})

    until(made, "another Secret")
    assert before[0] in authorities(fleet)
    secret = fleet.kubectl.get("secret", "capsign-injector-tls", SYSTEM)
    assert secret["metadata"]["annotations"]["meta.helm.sh/release-name"] == "capsign"
    fleet.wait_ready()
    assert fleet.cluster.api.ask("POST", DRY, pod(fleet))[0] == 201


# --- who asks in words that nothing hears ---


@pytest.mark.parametrize("value", ["True", "yes"])
def test_a_label_that_is_nearly_right_is_refused_by_name(fleet, value):
    asked = json.dumps(pod(fleet, "nearly", labels={"capsign.dev/inject": value}))
    said = fleet.developer.refused("create", "--dry-run=server", "-f", "-", stdin=asked)
    assert 'capsign.dev/inject: "true"' in said
    assert 'The Pod "nearly" is invalid' in said


def test_the_annotation_in_the_labels_place_is_refused_and_a_template_warned_about(fleet):
    wrong = {"annotations": {"capsign.dev/inject": "true"}, "labels": {}}
    asked = json.dumps(pod(fleet, "misplaced", **wrong))
    assert "It is a label" in fleet.developer.refused(
        "create", "--dry-run=server", "-f", "-", stdin=asked
    )
    spec = pod(fleet)["spec"]
    workload = manifests.replicated("Deployment", "misplaced", SHOP, spec, **wrong)
    done = fleet.developer.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(workload))
    assert done.returncode == 0, done.stderr
    assert "It is a label" in done.stderr


# --- what is no review ---


def test_what_is_no_review_is_refused_and_the_next_pod_is_admitted(fleet):
    ask = fleet.cluster.api.ask
    assert ask("GET", f"{INJECTOR}/inject")[0] == 405
    assert ask("POST", f"{INJECTOR}/elsewhere", {})[0] == 404
    assert ask("POST", f"{INJECTOR}/inject", {"kind": "Pod"})[0] == 400
    assert ask("POST", f"{INJECTOR}/inject", b"\xff" * 100)[0] == 400
    assert ask("POST", f"{INJECTOR}/inject", b"{}", content_type="text/plain")[0] == 415
    # Who refuses a length need not read what has it: the connection may be closed while the rest of
    # the body is still being sent.
    with contextlib.suppress(ssl.SSLEOFError, ConnectionError):
        assert ask("POST", f"{INJECTOR}/inject", b" " * (10 << 20))[0] == 413
    assert ask("POST", DRY, pod(fleet))[0] == 201


def test_a_thousand_reviews_at_once(fleet):
    asked = pod(fleet)
    with ThreadPoolExecutor(100) as callers:
        answers = list(
            callers.map(lambda _: fleet.cluster.api.ask("POST", DRY, asked)[0], range(1000))
        )
    assert set(answers) == {201}
