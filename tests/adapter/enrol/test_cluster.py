"""The client of the Kubernetes API, against one that is well and one that is not."""

from __future__ import annotations

import socket
import ssl
import threading
from ipaddress import ip_address

import pytest
from capsign_adapter.enrol.api import Api
from capsign_adapter.enrol.cluster import Cluster
from capsign_wire.failures import FailureError
from capsign_wire.settings import SettingsError
from capsign_wire.types.v1 import failures_pb2 as reasons
from support.ca import Authority
from support.fake_cluster import AUDIENCE

QUESTIONS = {
    "review": lambda cluster: cluster.review("a.b.c", AUDIENCE),
    "pod": lambda cluster: cluster.pod("demo", "web-0"),
    "config map": lambda cluster: cluster.config_map("capsign-system", "bundle"),
    "write": lambda cluster: cluster.write_config_map(
        "capsign-system", "bundle", {"k": "v"}, {}, ""
    ),
}


def unavailable(question, cluster) -> FailureError:
    with pytest.raises(FailureError) as caught:
        question(cluster)
    assert caught.value.reason == reasons.REASON_CLUSTER_UNAVAILABLE
    assert caught.value.retry_after_ms
    return caught.value


def test_a_good_token_names_account_and_pod(fake, cluster):
    pod = fake.run("demo", "web-0", "app", "10.1.0.5", "fd00::5")
    facts = cluster.review(fake.token(pod), AUDIENCE)
    assert facts.authenticated
    assert facts.username == "system:serviceaccount:demo:app"
    assert facts.audiences == (AUDIENCE,)
    assert (facts.pod_name, facts.pod_uid) == ("web-0", pod.uid)


def test_a_token_that_is_bound_to_nothing_names_no_pod(fake, cluster):
    facts = cluster.review(fake.token(None), AUDIENCE)
    assert facts.authenticated
    assert (facts.pod_name, facts.pod_uid) == ("", "")


@pytest.mark.parametrize("why", ["another audience", "expired", "unknown"])
def test_a_bad_token_is_not_authenticated(fake, cluster, why):
    pod = fake.run("demo", "web-0", "app", "10.1.0.5")
    token = {
        "another audience": lambda: fake.token(pod, audience="https://kubernetes.default.svc"),
        "expired": lambda: fake.token(pod, seconds=-1),
        "unknown": lambda: "eyJ.eyJ.sig",
    }[why]()
    assert not cluster.review(token, AUDIENCE).authenticated


def test_a_pod_as_it_is_stored(fake, cluster):
    pod = fake.run("demo", "web-0", "app", "10.1.0.5", "fd00::5")
    facts = cluster.pod("demo", "web-0")
    assert (facts.uid, facts.service_account, facts.phase) == (pod.uid, "app", "Running")
    assert facts.addresses == (ip_address("10.1.0.5"), ip_address("fd00::5"))
    assert facts.deleted_ms is None
    pod.deleted_at = 1_700_000_000.0
    assert cluster.pod("demo", "web-0").deleted_ms == 1_700_000_000_000


def test_a_pod_without_an_address_yet(fake, cluster):
    fake.run("demo", "web-0", "app")
    assert cluster.pod("demo", "web-0").addresses == ()


def test_a_pod_that_is_not_there_is_none(cluster):
    assert cluster.pod("demo", "web-0") is None


def test_names_cannot_leave_their_place_in_the_path(fake, cluster):
    assert cluster.pod("demo", "../../../apis/x") is None
    assert fake.requests == [("GET", "/api/v1/namespaces/demo/pods/..%2F..%2F..%2Fapis%2Fx")]


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
@pytest.mark.parametrize(
    "misbehaviour",
    ["huge", "garbage", "wrong shape", "hang up", "500", "401", "403", "404", "redirect"],
)
def test_what_is_no_answer_decides_nothing(fake, cluster, question, misbehaviour, capsys):
    fake.misbehaviour = misbehaviour
    failure = unavailable(question, cluster)
    assert "a.b.c" not in str(failure) + capsys.readouterr().err
    fake.misbehaviour = None
    question(cluster)


def test_an_answer_that_trickles_is_given_up(fake):
    """Each byte comes well within a socket's timeout; the answer as a whole never does."""
    fake.misbehaviour = "slow"
    api = Api(fake.url, fake.token_file, fake.ca_file, seconds=0.4)
    unavailable(QUESTIONS["review"], Cluster(api))


def test_a_server_that_says_nothing_is_given_up(fake):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api = Api(
            f"https://localhost:{silent.getsockname()[1]}",
            fake.token_file,
            fake.ca_file,
            seconds=0.3,
        )
        unavailable(QUESTIONS["pod"], Cluster(api))


def test_a_server_that_is_not_there(fake):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    unavailable(
        QUESTIONS["pod"], Cluster(Api(f"https://localhost:{port}", fake.token_file, fake.ca_file))
    )


def test_a_server_of_another_authority_gets_no_token(fake, tmp_path):
    fake.ca_file.write_bytes(Authority("impostor").certificate)
    unavailable(QUESTIONS["review"], Cluster(Api(fake.url, fake.token_file, fake.ca_file)))
    assert fake.requests == []


def test_a_server_by_another_name_gets_no_token(fake):
    unavailable(
        QUESTIONS["review"],
        Cluster(Api(f"https://127.0.0.1:{fake.port}", fake.token_file, fake.ca_file)),
    )
    assert fake.requests == []


def test_i10_a_server_that_only_has_tls_1_2_gets_no_token(fake, cluster):
    fake.context.maximum_version = ssl.TLSVersion.TLSv1_2
    unavailable(QUESTIONS["review"], cluster)
    assert fake.requests == []


def test_the_token_is_the_one_in_the_file_now(fake, cluster):
    cluster.pod("demo", "web-0")
    fake.new_adapter_token()
    cluster.pod("demo", "web-0")
    assert len(fake.requests) == 2


@pytest.mark.parametrize("content", ["", "two words", "line\nline", "x" * 20_000, "tokén"])
def test_a_token_file_that_holds_no_token_is_not_sent(fake, cluster, content):
    fake.token_file.write_text(content)
    unavailable(QUESTIONS["pod"], cluster)
    assert fake.requests == []


def test_a_missing_token_file_is_no_crash(fake, cluster):
    fake.token_file.unlink()
    unavailable(QUESTIONS["pod"], cluster)


def test_a_new_authority_of_the_cluster_is_believed_without_a_restart(fake, cluster):
    cluster.pod("demo", "web-0")
    fake.new_authority()
    cluster.pod("demo", "web-0")
    assert len(fake.requests) == 2


def test_a_connection_that_the_server_closed_meanwhile_costs_nothing(fake, cluster):
    cluster.pod("demo", "web-0")
    fake.hang_up()
    cluster.pod("demo", "web-0")
    assert len(fake.requests) == 2


def test_a_connection_is_used_again(fake, cluster):
    for _ in range(5):
        cluster.pod("demo", "web-0")
    assert fake.connected == 1


def test_many_threads_ask_at_once(fake, cluster):
    pod = fake.run("demo", "web-0", "app", "10.1.0.5")
    token = fake.token(pod)
    good: list[bool] = []

    def ask():
        good.extend(cluster.review(token, AUDIENCE).pod_uid == pod.uid for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [True] * 60
    fake.wait_for_connections(8)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "https://",
        "localhost:6443",
        "https://a:b",
        "https://a/path",
        "https://u@a",
        "https://a?q",
        "",
    ],
)
def test_an_address_that_is_none_is_refused_by_the_name_of_its_key(tmp_path, url):
    with pytest.raises(SettingsError) as caught:
        Api(url, tmp_path / "t", tmp_path / "c")
    assert caught.value.key == "identity.kubernetes.api_server"


def test_a_config_map_is_made_then_changed_and_the_rest_of_it_stays(fake, cluster):
    assert cluster.config_map("capsign-system", "bundle") is None
    fake.config_maps["capsign-system", "bundle"] = {
        "kind": "ConfigMap",
        "metadata": {"resourceVersion": "1", "annotations": {"helm": "x"}},
        "data": {"other": "kept"},
    }
    found = cluster.config_map("capsign-system", "bundle")
    assert cluster.write_config_map(
        "capsign-system", "bundle", {"bundle.pem": "new"}, {"a": "1"}, found.version
    )
    after = cluster.config_map("capsign-system", "bundle")
    assert after.data == {"other": "kept", "bundle.pem": "new"}
    assert after.annotations == {"helm": "x", "a": "1"}
    assert not cluster.write_config_map(
        "capsign-system", "bundle", {"bundle.pem": "late"}, {}, found.version
    )


def test_no_proxy_of_the_environment_is_asked(fake, cluster, monkeypatch):
    """The API server is in the cluster, and the proxy of a node's environment leads out of it
    (decision 26).
    """
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    pod = fake.run("demo", "web-0", "app", "10.1.0.5")
    assert cluster.review(fake.token(pod), AUDIENCE).authenticated
