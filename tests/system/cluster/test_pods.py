"""One label, and the pod can sign: what a developer applies, what the kubelet runs, and what each
container can reach.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from capsign_evidence.leaf_reader import IdentityIssued, Signed
from system.cluster.fleet import INJECT, SHOP, reason_name
from system.cluster.kit import manifests

THREE_LINES = """
import capsign
signer = capsign.Signer()
signature = signer.sign(b"header.payload", purpose="jwt", algorithm="ES256")
"""
SIGN_AND_TELL = THREE_LINES + "print('leaf', signature.leaf_index)\n"
ORDERS = f"spiffe://cluster.local/ns/{SHOP}/sa/orders"
AGENT = "capsign-agent"
SOCKET = "/run/capsign/s/agent.sock"


def told_leaf(log: str) -> int:
    return int(log.split("leaf ")[1].split()[0])


def spec_of(*containers, account="orders", **more):
    return manifests.pod_spec(*containers, serviceAccountName=account, **more)


def pod_of(fleet, app: str) -> dict:
    return fleet.kubectl.get("pod", "", SHOP, app=app)["items"][0]


def names_of(pod: dict) -> list[str]:
    return [
        container["name"]
        for key in ("initContainers", "containers")
        for container in pod["spec"].get(key, ())
    ]


def test_a_labelled_job_signs_with_three_lines_and_completes(fleet):
    job = manifests.job(
        "three-lines",
        SHOP,
        spec_of(manifests.python("app", SIGN_AND_TELL, fleet.image)),
        labels=INJECT,
    )
    fleet.developer.create(job)
    fleet.developer.wait("condition=complete", "job/three-lines", SHOP)
    pod = pod_of(fleet, "three-lines")
    assert names_of(pod) == [AGENT, "app"]
    agent = pod["status"]["initContainerStatuses"][0]
    assert (agent["state"]["terminated"]["exitCode"], agent["restartCount"]) == (0, 0)
    log = fleet.entries()
    signed = log[told_leaf(fleet.developer("logs", "job/three-lines", "--container=app"))]
    assert isinstance(signed, Signed)
    assert (signed.group.workload, signed.group.grant, signed.group.caller) == (
        ORDERS,
        "orders-jwt",
        "app",
    )
    uid = bytes.fromhex(pod["metadata"]["uid"].replace("-", ""))
    issued = [entry for entry in log if isinstance(entry, IdentityIssued) and entry.pod_uid == uid]
    assert [entry.workload for entry in issued] == [ORDERS]
    assert issued[0].key_hash == signed.group.cert_key_hash


BOTH_WAYS = """
import asyncio, capsign, os
single = capsign.Signer().sign(b"a", purpose="jwt", algorithm="ES256")
async def many():
    async with capsign.AsyncSigner() as signer:
        calls = [signer.sign(b"%d" % n, purpose="jwt", algorithm="ES256") for n in range(20)]
        return await asyncio.gather(*calls)
print("leaves", single.leaf_index, *(one.leaf_index for one in asyncio.run(many())))
"""


def test_a_pod_of_a_profile_with_the_other_engine_signs_by_calls_and_streams(fleet):
    """`engine: native` (decision 77), in the image as it is, on a root that cannot be written:
    streams go through a second server, whose socket is among the temporary files.
    """
    fleet.developer.create(
        manifests.job(
            "native",
            SHOP,
            spec_of(manifests.python("app", BOTH_WAYS, fleet.image)),
            labels=INJECT,
            annotations={"capsign.dev/profile": "native"},
        )
    )
    fleet.developer.wait("condition=complete", "job/native", SHOP)
    told = fleet.developer("logs", "job/native", "--container=app").split("leaves ")[1].split()
    log = fleet.entries()
    assert len(told) == 21
    assert all(isinstance(log[int(leaf)], Signed) for leaf in told)
    agent = fleet.developer("logs", "job/native", f"--container={AGENT}")
    assert '"front.memory_unbounded"' in agent


def test_a_cron_job_signs_too(fleet):
    template = manifests.job(
        "cron", SHOP, spec_of(manifests.python("app", SIGN_AND_TELL, fleet.image)), labels=INJECT
    )
    fleet.developer.create(
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": {"name": "cron", "namespace": SHOP},
            "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": template["spec"]}},
        }
    )
    fleet.developer("create", "job", "of-cron", "--from=cronjob/cron")
    fleet.developer.wait("condition=complete", "job/of-cron", SHOP)
    leaf = told_leaf(fleet.developer("logs", "job/of-cron", "--container=app"))
    assert fleet.entries()[leaf].group.workload == ORDERS


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_what_runs_on_is_injected_too_and_its_init_containers_can_sign(fleet, kind):
    name = f"on-{kind.lower()}"
    wait = manifests.python("app", SIGN_AND_TELL + "import time; time.sleep(600)", fleet.image)
    first = manifests.python("prepare", SIGN_AND_TELL, fleet.image)
    more = {"serviceName": name} if kind == "StatefulSet" else {}
    thing = manifests.replicated(
        kind,
        name,
        SHOP,
        spec_of(wait, initContainers=[first]),
        labels=INJECT,
        annotations={"capsign.dev/containers": "prepare,app"},
        **more,
    )
    if kind == "DaemonSet":
        del thing["spec"]["replicas"]
    fleet.developer.create(thing)
    try:
        fleet.developer("rollout", "status", f"{kind.lower()}/{name}", "--timeout=180s")
        pod = pod_of(fleet, name)
        assert names_of(pod) == [AGENT, "prepare", "app"]
        leaf = told_leaf(fleet.developer("logs", pod["metadata"]["name"], "--container=prepare"))
        assert fleet.entries()[leaf].group.caller == "prepare"
    finally:
        fleet.developer("delete", kind.lower(), name, "--wait=false")


@pytest.mark.parametrize("kind", ["Job", "Deployment", "StatefulSet"])
def test_what_has_no_label_is_as_it_was_applied(fleet, kind):
    name = f"plain-{kind.lower()}"
    seconds = 1 if kind == "Job" else 600
    spec = spec_of(manifests.python("app", f"import time; time.sleep({seconds})", fleet.image))
    thing = (
        manifests.job(name, SHOP, spec)
        if kind == "Job"
        else manifests.replicated(kind, name, SHOP, spec)
    )
    fleet.developer.create(thing)
    try:
        if kind == "Job":
            fleet.developer.wait("condition=complete", f"job/{name}", SHOP)
        else:
            fleet.developer("rollout", "status", f"{kind.lower()}/{name}", "--timeout=180s")
        pod = pod_of(fleet, name)
        assert names_of(pod) == ["app"]
        assert "capsign" not in json.dumps(pod["spec"]).replace(fleet.image, "")
    finally:
        fleet.developer("delete", kind.lower(), name, "--wait=false")


REACH = """
import errno, json, os, capsign
found = {
    "socket": os.environ.get("CAPSIGN_SOCKET"),
    "run": os.path.exists("/run/capsign"),
    "token": os.path.exists("/var/run/secrets/capsign"),
    "state": os.path.exists("/run/capsign/state"),
    "processes": [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid()],
}
if found["socket"]:
    try:
        os.unlink(found["socket"])
    except OSError as error:
        found["unlink"] = errno.errorcode[error.errno]
    calls = {"jwt": "ES256", "webhook": "HS256", "release": "ES256"}
    with capsign.Signer() as signer:
        found["grants"] = sorted(handle.grant for handle in signer.handles())
        for purpose, algorithm in calls.items():
            try:
                signer.sign(b"m", purpose=purpose, algorithm=algorithm)
                found[purpose] = "signed"
            except capsign.Refused as error:
                found[purpose] = error.reason
            except capsign.HandleNotChosen as error:
                found[purpose] = "no handle"
print(json.dumps(found))
"""


def test_each_container_reaches_its_own_socket_and_nothing_else_of_the_agent(fleet):
    containers = [manifests.python(name, REACH, fleet.image) for name in ("app", "hooks", "bare")]
    annotations = {"capsign.dev/containers": "app,hooks", "capsign.dev/profile.hooks": "webhooks"}
    fleet.developer.create(
        manifests.job("reach", SHOP, spec_of(*containers), labels=INJECT, annotations=annotations)
    )
    fleet.developer.wait("condition=complete", "job/reach", SHOP)
    app, hooks, bare = (
        json.loads(fleet.developer("logs", "job/reach", f"--container={name}"))
        for name in ("app", "hooks", "bare")
    )
    for found in (app, hooks):
        assert (found["socket"], found["token"], found["state"], found["processes"]) == (
            SOCKET,
            False,
            False,
            [],
        )
        assert found["unlink"] == "EROFS"
    assert app["grants"] == ["orders-jwt"]
    assert app["jwt"] == "signed"
    assert "signed" not in (app["webhook"], app["release"])
    assert hooks["grants"] == ["orders-webhook"]
    assert hooks["webhook"] == "signed"
    assert "signed" not in (hooks["jwt"], hooks["release"])
    assert bare == {"socket": None, "run": False, "token": False, "state": False, "processes": []}


def test_the_agent_has_its_own_token_and_not_the_applications(fleet):
    app = manifests.python("app", SIGN_AND_TELL + "import time; time.sleep(600)", fleet.image)
    fleet.developer.create(manifests.pod("tokens", SHOP, spec_of(app), labels=INJECT))
    try:
        fleet.developer.wait("condition=Ready", "pod/tokens", SHOP)
        agent, application = (fleet.root_of("tokens", name) for name in (AGENT, "app"))
        own, default = (
            Path("var/run/secrets/capsign/token"),
            Path("var/run/secrets/kubernetes.io/serviceaccount"),
        )
        assert (agent / own).is_file()
        assert not list((agent / default).iterdir())
        assert (application / default / "token").is_file()
        assert not (application / own).exists()
        mounts = (agent.parent / "mounts").read_text()
        assert all("ro," in line for line in mounts.splitlines() if line.split()[1] == "/")
    finally:
        fleet.developer("delete", "pod", "tokens", "--wait=false")


def test_a_pod_on_its_nodes_network_signs_where_that_is_allowed(fleet):
    """`agent.allowHostNetwork` let it pass the injector; the adapter on the same node saw an
    address that is not the pod's.
    """
    level = ("label", "namespace", SHOP, "--overwrite", "pod-security.kubernetes.io/enforce=")
    fleet.kubectl(*level[:-1], f"{level[-1]}privileged")
    try:
        app = manifests.python("app", SIGN_AND_TELL, fleet.image)
        spec = spec_of(app, hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet")
        fleet.developer.create(manifests.job("on-the-node", SHOP, spec, labels=INJECT))
        fleet.developer.wait("condition=complete", "job/on-the-node", SHOP)
        leaf = told_leaf(fleet.developer("logs", "job/on-the-node", "--container=app"))
        assert fleet.entries()[leaf].group.workload == ORDERS
    finally:
        fleet.kubectl(*level[:-1], f"{level[-1]}restricted")


def test_an_application_that_policy_does_not_name_gets_no_identity(fleet):
    app = manifests.python("app", SIGN_AND_TELL, fleet.image)
    fleet.developer.create(
        manifests.pod("stranger", SHOP, spec_of(app, account="stranger"), labels=INJECT)
    )
    try:
        uid = uuid.UUID(fleet.kubectl.get("pod", "stranger", SHOP)["metadata"]["uid"]).bytes
        refused = fleet.until_entry(
            lambda entry: getattr(entry, "pod_uid", b"") == uid, "the refusal of the stranger"
        )
        assert reason_name(refused) == "IDENTITY_UNKNOWN"
        assert fleet.kubectl.get("pod", "stranger", SHOP)["status"]["phase"] == "Pending"
    finally:
        fleet.developer("delete", "pod", "stranger", "--wait=false")
