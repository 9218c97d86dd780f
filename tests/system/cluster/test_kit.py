"""The cluster is a real one: what the scenarios rely on, seen on its own before anything of ours
runs on it.
"""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from pathlib import Path

from system.cluster.kit import manifests
from system.cluster.kit.cluster import KUBECTL, TESTS, until
from system.cluster.kit.pki import ClusterAuthority

SIDECAR = """
    import os, signal, socket, sys

    def leave(*_):
        print("sidecar: told to end", flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("/run/shared/socket")
    listener.listen()
    print("sidecar: listening", flush=True)
    while True:
        caller, _ = listener.accept()
        try:
            caller.sendall(b"hello")
        except BrokenPipeError:
            pass  # the start-up probe connects and leaves
        caller.close()
"""
ASK = """
    import socket
    asked = socket.socket(socket.AF_UNIX)
    asked.connect("/run/shared/socket")
    assert asked.recv(5) == b"hello"
"""


def memory(name, **more):
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}, **more}


def mounted(name, path, **more):
    return {"name": name, "mountPath": path, **more}


def sidecar(image, **more):
    probe = {
        "exec": {"command": ["/usr/bin/python3", "-c", ASK.replace("    ", "")]},
        "periodSeconds": 1,
        "failureThreshold": 60,
    }
    return manifests.python(
        "sidecar",
        SIDECAR,
        image,
        restartPolicy="Always",
        startupProbe=probe,
        volumeMounts=[mounted("shared", "/run/shared"), *more.pop("volumeMounts", ())],
        **more,
    )


def test_a_native_sidecar_is_there_before_the_application_and_ends_after_it(
    cluster, namespace, image
):
    app = manifests.python(
        "app",
        ASK
        + """
    import errno
    try:
        open("/run/shared/mine", "w")
    except OSError as error:
        assert error.errno == errno.EROFS
    else:
        raise SystemExit("the volume is writable")
    """,
        image,
        volumeMounts=[mounted("shared", "/run/shared", readOnly=True)],
    )
    spec = manifests.pod_spec(app, initContainers=[sidecar(image)], volumes=[memory("shared")])
    cluster.kubectl.create(manifests.job("once", namespace, spec))
    cluster.kubectl.wait("condition=complete", "job/once", namespace)
    pod = cluster.kubectl.get("pod", "", namespace, app="once")["items"][0]
    side, main = pod["status"]["initContainerStatuses"][0], pod["status"]["containerStatuses"][0]
    assert (side["state"]["terminated"]["exitCode"], side["restartCount"]) == (0, 0)
    assert side["state"]["terminated"]["startedAt"] <= main["state"]["terminated"]["startedAt"]
    assert "sidecar: told to end" in cluster.kubectl(
        "logs", "job/once", "--container=sidecar", f"--namespace={namespace}"
    )


def test_a_killed_sidecar_comes_back_beside_the_running_application(cluster, namespace, image):
    app = manifests.python(
        "app",
        "import time; time.sleep(600)",
        image,
        volumeMounts=[mounted("shared", "/run/shared")],
    )
    # A socket that a dead process left behind is in the way of its successor.
    side = sidecar(image, lifecycle={})
    side["command"][-1] = side["command"][-1].replace(
        "listener.bind",
        'os.path.exists("/run/shared/socket") and os.unlink("/run/shared/socket")\nlistener.bind',
    )
    spec = manifests.pod_spec(app, initContainers=[side], volumes=[memory("shared")])
    cluster.kubectl.create(manifests.pod("pair", namespace, spec))
    cluster.kubectl.wait("condition=Ready", "pod/pair", namespace)
    cluster.on_node("kill", "-KILL", str(cluster.process_of("pair", "sidecar", namespace)))

    def restarted():
        status = cluster.kubectl.get("pod", "pair", namespace)["status"]
        return (
            status["initContainerStatuses"][0]["restartCount"] == 1
            and status["initContainerStatuses"][0]["started"]
        )

    until(restarted, "the sidecar's restart")
    assert (
        cluster.kubectl.get("pod", "pair", namespace)["status"]["containerStatuses"][0][
            "restartCount"
        ]
        == 0
    )
    cluster.kubectl(
        "exec",
        "pair",
        "--container=app",
        f"--namespace={namespace}",
        "--",
        "python3",
        "-c",
        ASK.replace("    ", ""),
    )


def test_a_projected_token_is_for_its_audience_and_names_its_pod(cluster, namespace, image):
    token = {
        "serviceAccountToken": {"path": "token", "audience": "somebody", "expirationSeconds": 600}
    }
    holder = manifests.python(
        "holder",
        "import time; time.sleep(600)",
        image,
        volumeMounts=[mounted("token", "/run/token")],
    )
    spec = manifests.pod_spec(
        holder,
        volumes=[{"name": "token", "projected": {"sources": [token]}}],
        automountServiceAccountToken=False,
    )
    cluster.kubectl.create(manifests.pod("holder", namespace, spec))
    cluster.kubectl.wait("condition=Ready", "pod/holder", namespace)
    read = cluster.kubectl(
        "exec",
        "holder",
        f"--namespace={namespace}",
        "--",
        "python3",
        "-c",
        "print(open('/run/token/token').read())",
    ).strip()

    def review(*audiences):
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": read, "audiences": list(audiences)},
        }
        answer = cluster.kubectl("create", "--output=json", "-f", "-", stdin=json.dumps(asked))
        return json.loads(answer)["status"]

    for_us = review("somebody")
    assert for_us["authenticated"]
    assert for_us["user"]["username"] == f"system:serviceaccount:{namespace}:default"
    assert for_us["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["holder"]
    assert not review("somebody-else").get("authenticated")


def test_services_have_names_and_addresses(cluster, namespace, image):
    server = manifests.python(
        "server",
        """
        import http.server, socketserver
        handler = http.server.SimpleHTTPRequestHandler
        http.server.ThreadingHTTPServer(("", 8080), handler).serve_forever()
        """,
        image,
        readinessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    )
    cluster.kubectl.create(
        manifests.replicated(
            "StatefulSet", "web", namespace, manifests.pod_spec(server), serviceName="web-all"
        ),
        manifests.service("web", namespace, 80, 8080),
        manifests.service(
            "web-all", namespace, 80, 8080, clusterIP="None", selector={"app": "web"}
        ),
    )
    cluster.kubectl(
        "rollout", "status", "statefulset/web", f"--namespace={namespace}", "--timeout=180s"
    )
    asker = manifests.python(
        "asker",
        f"""
        import socket
        from urllib.request import urlopen
        service = socket.gethostbyname("web")
        for name in ("web.{namespace}", "web.{namespace}.svc", "web.{namespace}.svc.cluster.local"):
            assert socket.gethostbyname(name) == service, name
            assert urlopen(f"http://{{name}}/").status == 200
        pod = socket.gethostbyname("web-0.web-all.{namespace}.svc")
        assert pod.startswith("10.244.") and pod == socket.gethostbyname("web-all")
        try:
            socket.gethostbyname("nowhere.{namespace}.svc")
        except socket.gaierror as error:
            assert error.errno == socket.EAI_NONAME, error
        else:
            raise SystemExit("a name of nobody")
        """,
        image,
    )
    cluster.kubectl.create(manifests.job("ask", namespace, manifests.pod_spec(asker)))
    cluster.kubectl.wait("condition=complete", "job/ask", namespace)


def test_a_claim_gets_a_volume_that_its_group_may_write_and_that_outlives_the_pod(
    cluster, namespace, image
):
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "kept", "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
    }
    cluster.kubectl.create(claim)

    def run(name, source):
        user = manifests.python(name, source, image, volumeMounts=[mounted("kept", "/kept")])
        spec = manifests.pod_spec(
            user, volumes=[{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}]
        )
        spec["securityContext"]["fsGroup"] = 65532
        cluster.kubectl.create(manifests.job(name, namespace, spec))
        cluster.kubectl.wait("condition=complete", f"job/{name}", namespace)

    run("write", "open('/kept/word', 'w').write('still here')")
    run("read", "assert open('/kept/word').read() == 'still here'")


def test_the_api_server_asks_a_webhook_behind_a_service(cluster, namespace, image):
    authority = ClusterAuthority()
    serving = authority.issue("hook", names=(f"hook.{namespace}.svc",))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "hook", "namespace": namespace},
        "stringData": {"crt": serving.certificate.decode(), "key": serving.key.decode()},
    }
    hook = manifests.python(
        "hook",
        """
        import base64, http.server, json, ssl

        class Hook(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                patch = [{"op": "add", "path": "/metadata/labels/seen", "value": "yes"}]
                response = {"uid": review["request"]["uid"], "allowed": True,
                            "patchType": "JSONPatch",
                            "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
                review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                          "response": response}
                body = json.dumps(review).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        server = http.server.ThreadingHTTPServer(("", 8443), Hook)
        trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trust.load_cert_chain("/tls/crt", "/tls/key")
        server.socket = trust.wrap_socket(server.socket, server_side=True)
        server.serve_forever()
        """,
        image,
        volumeMounts=[mounted("tls", "/tls")],
        readinessProbe={"tcpSocket": {"port": 8443}, "periodSeconds": 1},
    )
    spec = manifests.pod_spec(hook, volumes=[{"name": "tls", "secret": {"secretName": "hook"}}])
    cluster.kubectl.create(
        secret,
        manifests.replicated("Deployment", "hook", namespace, spec),
        manifests.service("hook", namespace, 443, 8443),
    )
    cluster.kubectl(
        "rollout", "status", "deployment/hook", f"--namespace={namespace}", "--timeout=180s"
    )
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": [
            {
                "name": "hook.capsign.test",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "objectSelector": {"matchLabels": {"ask": "hook"}},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "rules": [
                    {
                        "operations": ["CREATE"],
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "resources": ["pods"],
                    }
                ],
                "clientConfig": {
                    "service": {"name": "hook", "namespace": namespace},
                    "caBundle": base64.b64encode(authority.certificate).decode(),
                },
            }
        ],
    }
    cluster.kubectl.create(configuration)
    try:
        asked = manifests.pod(
            "asked",
            namespace,
            manifests.pod_spec(manifests.python("app", "pass", image)),
            labels={"ask": "hook"},
        )

        def seen():
            answer = cluster.kubectl(
                "create", "--dry-run=server", "--output=json", "-f", "-", stdin=json.dumps(asked)
            )
            return json.loads(answer)["metadata"]["labels"].get("seen") == "yes"

        until(seen, "the webhook's label")
    finally:
        cluster.kubectl("delete", "mutatingwebhookconfiguration", namespace)


def test_pod_security_refuses_what_is_not_restricted(cluster, namespace, image):
    spec = manifests.pod_spec(manifests.python("app", "pass", image))
    spec["securityContext"]["runAsNonRoot"] = False
    words = cluster.kubectl.refused(
        "create", "-f", "-", stdin=json.dumps(manifests.pod("loose", namespace, spec))
    )
    assert 'violates PodSecurity "restricted:latest"' in words


def test_an_ordinary_user_may_do_what_a_role_says_and_no_more(cluster, namespace, image):
    subject = {"kind": "User", "name": "grace", "apiGroup": "rbac.authorization.k8s.io"}
    cluster.kubectl.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "grace", "namespace": namespace},
            "subjects": [subject],
            "roleRef": {
                "kind": "ClusterRole",
                "name": "edit",
                "apiGroup": "rbac.authorization.k8s.io",
            },
        }
    )
    grace = cluster.speaking_as("grace")
    grace.create(
        manifests.pod("mine", namespace, manifests.pod_spec(manifests.python("app", "pass", image)))
    )
    assert 'User "grace" cannot' in grace.refused("get", "pods", "--namespace=kube-system")


def test_a_drained_node_takes_pods_again(cluster, namespace, image):
    sleeper = manifests.pod_spec(manifests.python("app", "import time; time.sleep(600)", image))
    cluster.kubectl.create(manifests.replicated("Deployment", "sleeper", namespace, sleeper))
    cluster.kubectl(
        "rollout", "status", "deployment/sleeper", f"--namespace={namespace}", "--timeout=180s"
    )
    cluster.kubectl(
        "drain",
        "node",
        "--pod-selector=app=sleeper",
        "--timeout=180s",
        "--force",
        "--delete-emptydir-data",
    )
    try:
        pods = cluster.kubectl.get("pod", "", namespace, app="sleeper")["items"]
        assert {pod["status"]["phase"] for pod in pods} <= {"Pending"}
    finally:
        cluster.kubectl("uncordon", "node")
    cluster.kubectl(
        "rollout", "status", "deployment/sleeper", f"--namespace={namespace}", "--timeout=180s"
    )


def test_a_killed_test_leaves_nothing_behind(tmp_path):
    program = """
import sys, time
from system.cluster.kit.cluster import Cluster
cluster = Cluster()
cluster.start()
print(cluster.kubectl.kubeconfig.parents[1], flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=TESTS, stdout=subprocess.PIPE, text=True
    ) as test:
        try:
            run = Path(test.stdout.readline().strip())
            kubeconfig = run / "configuration" / "admin.kubeconfig"
            subprocess.run(
                [KUBECTL, f"--kubeconfig={kubeconfig}", "get", "nodes"],
                check=True,
                capture_output=True,
            )
        finally:
            test.send_signal(signal.SIGKILL)
    until(lambda: not run.exists(), "the end of the run directory")
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{run.name}"))
    # The keeper removes the directory, and then ends: it is the last.
    until(
        lambda: (
            not [one for one in Path("/proc").iterdir() if one.name.isdigit() and of_run(one, run)]
        ),
        "the last process",
    )
    assert run.name not in Path("/proc/self/mounts").read_text()


def of_run(process: Path, run: Path) -> bool:
    try:
        return run.name in (process / "cmdline").read_text()
    except OSError:
        return False
