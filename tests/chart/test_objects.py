"""What the release may do, what it keeps, and what it never contains."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from support import chart

PREVIOUS = chart.REPOSITORY / "tests" / "chart" / "previous" / "capsign-0.1.0.tgz"
HSM = {
    "adapter": {
        "token": {"type": "library", "library": {"path": "/x.so"}, "pinSecret": {"name": "pin"}},
        "store": {
            "type": "postgresql",
            "postgresql": {"url": "postgresql://u@h/d", "passwordSecret": {"name": "db"}},
        },
    }
}


def rights(rendered: list[chart.Object]) -> set[tuple[str, str, str, str, str]]:
    """Kind, group, resource, name and verb of everything that may be done."""
    return {
        (role["kind"], group, resource, name, verb)
        for role in rendered
        if role["kind"] in {"Role", "ClusterRole"}
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
        for verb in rule["verbs"]
    }


def test_rights_are_exactly_these() -> None:
    webhooks = ("mutatingwebhookconfigurations", "capsign-injector-capsign-system")
    assert rights(chart.objects({})) == {
        ("ClusterRole", "authentication.k8s.io", "tokenreviews", "*", "create"),
        ("ClusterRole", "", "pods", "*", "get"),
        ("Role", "", "configmaps", "capsign-trust-bundle", "get"),
        ("Role", "", "configmaps", "capsign-trust-bundle", "patch"),
        ("Role", "", "secrets", "capsign-injector-tls", "get"),
        ("Role", "", "secrets", "capsign-injector-tls", "update"),
        ("Role", "", "secrets", "*", "create"),
        ("ClusterRole", "admissionregistration.k8s.io", *webhooks, "get"),
        ("ClusterRole", "admissionregistration.k8s.io", *webhooks, "update"),
    }


def test_an_injector_with_a_given_certificate_has_no_rights_and_no_token() -> None:
    rendered = chart.objects({"injector": {"certificate": {"source": "cert-manager"}}})
    assert {right[2] for right in rights(rendered)} == {"tokenreviews", "pods", "configmaps"}
    pod = chart.one(rendered, "Deployment", "capsign-injector")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False


def test_bindings_bind_roles_that_exist_to_accounts_that_exist() -> None:
    rendered = chart.objects({}, "r", "elsewhere")
    accounts = {each["metadata"]["name"] for each in rendered if each["kind"] == "ServiceAccount"}
    roles = {
        (each["kind"], each["metadata"]["name"])
        for each in rendered
        if each["kind"].endswith("Role")
    }
    bindings = [each for each in rendered if each["kind"].endswith("RoleBinding")]
    assert {(each["roleRef"]["kind"], each["roleRef"]["name"]) for each in bindings} == roles
    for each in bindings:
        (subject,) = each["subjects"]
        assert subject["namespace"] == "elsewhere"
        assert subject["name"] in accounts


def test_no_template_makes_a_secret() -> None:
    """A value that is made anew at each render would replace a key at every upgrade and every
    GitOps sync.
    """
    assert [each["metadata"]["name"] for each in chart.objects({}) if each["kind"] == "Secret"] == [
        "capsign-injector-tls"
    ]
    making = re.compile(
        r"\b(gen[A-Z]\w+|rand[A-Z]\w+|lookup|uuidv4|now|derivePassword|htpasswd|bcrypt|encryptAES)\b"
    )
    for path in (chart.CHART / "templates").rglob("*"):
        if path.is_file():
            actions = re.findall(r"\{\{.*?\}\}", path.read_text(), re.DOTALL)
            found = [action for action in actions if making.search(action) and "/*" not in action]
            # The one thing that is looked up: the size of a claim that is there, which many storage
            # classes let nobody change.
            claim = (
                path.name == "volume.yaml"
                and len(found) == 1
                and 'lookup "v1" "PersistentVolumeClaim"' in found[0]
            )
            assert found == [] or claim, path


@pytest.mark.parametrize(
    ("kind", "name"), [("ConfigMap", "capsign-trust-bundle"), ("Secret", "capsign-injector-tls")]
)
def test_what_programs_write_is_not_in_the_manifest(kind: str, name: str) -> None:
    """Applied with `data`, even an empty one, an upgrade would take away what the program wrote."""
    assert (
        not {"data", "stringData", "binaryData"} & chart.one(chart.objects({}), kind, name).keys()
    )


def test_the_authority_of_the_webhook_is_left_to_the_injector() -> None:
    (webhook,) = chart.one(
        chart.objects({}), "MutatingWebhookConfiguration", "capsign-injector-capsign-system"
    )["webhooks"]
    assert "caBundle" not in webhook["clientConfig"]


@pytest.mark.parametrize("name", ["capsign-adapter-data"])
def test_uninstall_keeps_the_volume(name: str) -> None:
    claim = chart.one(chart.objects({}), "PersistentVolumeClaim", name)
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    notes = chart.manifests({})["capsign/templates/NOTES.txt"]
    assert "keeps the volume capsign-adapter-data" in notes


def test_nothing_but_the_volume_outlives_an_uninstallation() -> None:
    """The trust bundle did. Of an authority that is gone with its volume it is worth nothing, and
    pods of the next installation got it.
    """
    kept = {
        (each["kind"], each["metadata"]["name"])
        for each in chart.objects({})
        if (each["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") == "keep"
    }
    assert kept == {("PersistentVolumeClaim", "capsign-adapter-data")}


def test_the_default_volume_is_the_one_of_the_table_and_lasts() -> None:
    """It was 1 GiB: at ten signatures a second full after two days, and then all signing ended."""
    claim = chart.one(chart.objects({}), "PersistentVolumeClaim", "capsign-adapter-data")
    size = claim["spec"]["resources"]["requests"]["storage"]
    page = (chart.REPOSITORY / "docs/operations/sizing.md").read_text()
    (told,) = re.findall(r"\| (\d+) GiB, the chart's default \|", page)
    assert size == f"{told}Gi"
    (dearest,) = re.findall(r"\| together, on a new store \| \d+ to (\d+) \|", page)
    seconds = int(told) * 2**30 / (10 * int(dearest))
    assert seconds > 30 * 86_400


def test_no_volume_where_nothing_is_on_it() -> None:
    rendered = chart.objects(HSM)
    assert not [each for each in rendered if each["kind"] == "PersistentVolumeClaim"]
    pod = chart.one(rendered, "Deployment", "capsign-adapter")["spec"]["template"]["spec"]
    assert {volume["name"] for volume in pod["volumes"]} == {
        "tmp",
        "config",
        "policy",
        "pin",
        "postgresql",
    }
    assert [container["name"] for container in pod["initContainers"]] == ["provision"]


def test_secret_files_are_for_the_adapter_only() -> None:
    """root's, and readable by our group: what `settings.read_secret` takes from a mounted Secret,
    and no more.
    """
    pod = chart.one(chart.objects(HSM), "Deployment", "capsign-adapter")["spec"]["template"]["spec"]
    modes = {
        volume["name"]: next(iter(volume.values())).get("defaultMode")
        for volume in map(without_name, pod["volumes"])
    }
    assert modes["pin"] == modes["postgresql"] == 0o440
    assert pod["securityContext"]["fsGroup"] == 65532
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"


def without_name(volume: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: value for key, value in volume.items() if key != "name"},
        "name": volume["name"],
    }


def test_only_labelled_pods_can_wait_for_the_webhook() -> None:
    (webhook,) = chart.one(
        chart.objects({}), "MutatingWebhookConfiguration", "capsign-injector-capsign-system"
    )["webhooks"]
    asked = {"key": "capsign.dev/inject", "operator": "NotIn", "values": ["false"]}
    assert webhook["objectSelector"] == {
        "matchExpressions": [asked, {"key": "capsign.dev/inject", "operator": "Exists"}]
    }
    (left_out,) = webhook["namespaceSelector"]["matchExpressions"]
    assert left_out == {
        "key": "kubernetes.io/metadata.name",
        "operator": "NotIn",
        "values": ["kube-system", "capsign-system"],
    }
    assert webhook["failurePolicy"] == "Fail"
    assert webhook["reinvocationPolicy"] == "IfNeeded"
    assert webhook["sideEffects"] == "None"
    assert webhook["timeoutSeconds"] == 5
    (rule,) = webhook["rules"]
    assert (rule["operations"], rule["resources"]) == (["CREATE"], ["pods"])


def test_two_releases_can_share_a_cluster() -> None:
    """Both webhooks act on the same label: the pods of a namespace are for one of them."""
    mine: dict[str, Any] = {
        "matchLabels": {"capsign": "a"},
        "matchExpressions": [{"key": "tier", "operator": "Exists"}],
    }
    rendered = chart.objects(
        {
            "injector": {
                "webhook": {"namespaceSelector": mine, "excludedNamespaces": ["other-capsign"]}
            }
        }
    )
    (webhook,) = chart.one(
        rendered, "MutatingWebhookConfiguration", "capsign-injector-capsign-system"
    )["webhooks"]
    left_out, further = webhook["namespaceSelector"]["matchExpressions"]
    assert left_out["values"] == ["kube-system", "capsign-system", "other-capsign"]
    assert (further, webhook["namespaceSelector"]["matchLabels"]) == (
        mine["matchExpressions"][0],
        mine["matchLabels"],
    )


def test_a_changed_configuration_makes_new_pods_and_nothing_else_does() -> None:
    def annotations(values: dict[str, Any], kind: str, name: str) -> dict[str, str]:
        return chart.one(chart.objects(values), kind, name)["spec"]["template"]["metadata"][
            "annotations"
        ]

    adapter = ("StatefulSet", "capsign-adapter")
    assert annotations({}, *adapter) != annotations({"adapter": {"streams": 600}}, *adapter)
    unchanged: list[dict[str, Any]] = [
        {"policy": {"sample": {"workloads": []}}},  # a running adapter takes it up (decision 41)
        {"injector": {"replicas": 3}, "monitoring": {"rules": {"enabled": True}}},
    ]
    for same in unchanged:
        assert annotations({}, *adapter) == annotations(same, *adapter)
    injector = ("Deployment", "capsign-injector")
    assert annotations({}, *injector) != annotations({"audience": "other"}, *injector)
    for kind, name in (adapter, injector):
        labels = chart.one(chart.objects({}), kind, name)["spec"]["template"]["metadata"]["labels"]
        assert not [value for value in labels.values() if re.search(r"\d+\.\d+", value)], (
            "a version in a pod's labels restarts it"
        )


def previous() -> helm_python.Chart:
    return helm_python.Chart.load_archive(PREVIOUS.read_bytes())


def previous_objects() -> list[chart.Object]:
    texts = previous().render({}, name=chart.RELEASE, namespace=chart.NAMESPACE)
    return [
        one
        for path, text in texts.items()
        if path.endswith(".yaml")
        for one in yaml.safe_load_all(text)
        if one
    ]


def test_the_previous_version_has_the_same_selectors_and_names() -> None:
    """A selector is immutable, and an object with another name is another object: a new volume, a
    new authority.
    """
    assert tuple(map(int, chart.chart().version.split("."))) > tuple(
        map(int, previous().version.split("."))
    )

    def kept(rendered: list[chart.Object]) -> dict[tuple[str, str], Any]:
        return {
            (each["kind"], each["metadata"]["name"]): each.get("spec", {}).get("selector")
            for each in rendered
        }

    before, after = previous_objects(), kept(chart.objects({}))
    assert {key: after.get(key, "gone") for key in kept(before)} == kept(before)


def test_the_package_holds_what_the_chart_needs_and_no_more(tmp_path: Any) -> None:
    archive = helm_python.package(chart.CHART, destination=tmp_path)
    with tarfile.open(archive) as packed:
        names = {name.removeprefix("capsign/") for name in packed.getnames()}
    here = {str(path.relative_to(chart.CHART)) for path in chart.CHART.rglob("*") if path.is_file()}
    assert names == here


def hooks_of_the_test(values: dict[str, Any], name: str = chart.RELEASE) -> dict[str, chart.Object]:
    rendered = chart.objects(values, name)
    return {
        each["kind"]: each
        for each in rendered
        if each["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"
    }


def test_helm_test_deletes_no_namespace_of_somebody() -> None:
    """Helm deletes a hook's object before it makes it anew, whoever made it, and of a namespace all
    that is in it. With `test.namespace: shop` a test would have ended the shop, with a release
    called `shop` what is in `shop-test`.
    """
    made = hooks_of_the_test({})
    assert (
        made["Namespace"]["metadata"]["name"]
        == made["Pod"]["metadata"]["namespace"]
        == "capsign-test"
    )
    given = hooks_of_the_test({"test": {"namespace": "shop"}})
    assert set(given) == {"ServiceAccount", "Pod"}
    assert {each["metadata"]["namespace"] for each in given.values()} == {"shop"}
    renamed = hooks_of_the_test({"fullnameOverride": "shop"})
    assert (
        renamed["Namespace"]["metadata"]["name"]
        == renamed["Pod"]["metadata"]["namespace"]
        == "shop-capsign-test"
    )


def test_the_webhook_looks_at_the_namespace_that_the_test_makes() -> None:
    """With a selector of namespaces the test's pod got no agent: the namespace, made anew each
    time, had none of its labels.
    """
    mine = {"matchLabels": {"capsign": "a", "pod-security.kubernetes.io/enforce": "baseline"}}
    labels = hooks_of_the_test({"injector": {"webhook": {"namespaceSelector": mine}}})["Namespace"][
        "metadata"
    ]["labels"]
    assert labels["capsign"] == "a"
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert labels["app.kubernetes.io/component"] == "test"


def test_without_the_injector_nobody_is_told_to_use_it() -> None:
    """`helm test` could only fail, and its pod's agent would never come."""
    assert hooks_of_the_test({"injector": {"enabled": False}}) == {}
    notes = chart.manifests({"injector": {"enabled": False}})["capsign/templates/NOTES.txt"]
    assert "helm test" not in notes
    assert "capsign.dev/inject" not in notes
    assert "capsign inject -f" in notes
    assert "get configmap capsign-injector -o jsonpath" in notes
    assert (
        "helm test"
        not in chart.manifests({"test": {"enabled": False}})["capsign/templates/NOTES.txt"]
    )


def test_a_given_authority_is_not_put_where_another_wrote_one() -> None:
    """A server-side apply that changes what the injector wrote is a conflict: the upgrade from
    `own` to `secret` ended there, with replicas that already served the given certificate, and no
    labelled pod could be made.
    """

    def names(**certificate: str) -> list[str]:
        rendered = chart.objects({"injector": {"certificate": certificate}})
        found = [each for each in rendered if each["kind"] == "MutatingWebhookConfiguration"]
        assert ["caBundle" in each["webhooks"][0]["clientConfig"] for each in found] == [
            certificate["source"] == "secret"
        ]
        return [each["metadata"]["name"] for each in found]

    given = names(source="secret", existingSecret="tls", caBundle="-----BEGIN CERTIFICATE-----")
    assert given == ["capsign-injector-given-capsign-system"]
    assert (
        names(source="own") == names(source="cert-manager") == ["capsign-injector-capsign-system"]
    )


def test_a_certificate_of_another_source_is_not_served() -> None:
    """Left over among the values, `existingSecret` was served while cert-manager published another
    authority: no labelled pod could be made.
    """
    certificate = {
        "source": "cert-manager",
        "existingSecret": "old",
        "caBundle": "-----BEGIN CERTIFICATE-----",
    }
    rendered = chart.objects({"injector": {"certificate": certificate}})
    pod = chart.one(rendered, "Deployment", "capsign-injector")["spec"]["template"]["spec"]
    (volume,) = [each for each in pod["volumes"] if each["name"] == "tls"]
    assert (
        volume["secret"]["secretName"]
        == chart.one(rendered, "Certificate", "capsign-injector")["spec"]["secretName"]
    )


def test_replicas_drain_before_they_are_killed() -> None:
    pod = chart.one(
        chart.objects({"adapter": {"preStopSeconds": 7, "drainSeconds": 60}}),
        "StatefulSet",
        "capsign-adapter",
    )
    spec = pod["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["lifecycle"]["preStop"] == {"sleep": {"seconds": 7}}
    assert spec["terminationGracePeriodSeconds"] > 67


def test_a_volume_that_one_node_mounts_is_let_go_before_it_is_wanted_elsewhere() -> None:
    """SoftHSM with PostgreSQL and one replica: the new pod, on another node, waited for the volume,
    and the old one was to stay until the new one is ready. No upgrade ever ended.
    """
    postgresql = {"type": "postgresql", "postgresql": {"url": "postgresql://u@h/d"}}

    def strategy(**adapter: Any) -> dict[str, Any]:
        rendered = chart.objects({"adapter": {"store": postgresql, **adapter}})
        return chart.one(rendered, "Deployment", "capsign-adapter")["spec"]["strategy"]

    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert strategy() == {"type": "Recreate"}
    assert strategy(replicas=2, persistence={"accessModes": ["ReadWriteMany"]}) == rolling
    assert strategy(token=HSM["adapter"]["token"]) == rolling


def test_cold_files_are_on_a_claim_of_their_own() -> None:
    retention = {"existingClaim": "evidence", "afterDays": 30, "unwitnessed": True}
    rendered = chart.objects({"adapter": {"log": {"retention": retention}}})
    pod = chart.one(rendered, "StatefulSet", "capsign-adapter")["spec"]["template"]["spec"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert volumes["cold"]["persistentVolumeClaim"] == {"claimName": "evidence"}
    for container in (*pod["containers"], pod["initContainers"][-1]):
        mounted = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
        assert mounted["cold"] == "/var/lib/capsign-cold"
    config = chart.one(rendered, "ConfigMap", "capsign-adapter")["data"]["adapter.toml"]
    log = tomllib.loads(config)["log"]
    assert log["retention"] == {
        "directory": "/var/lib/capsign-cold/log",
        "after_days": 30,
        "unwitnessed": True,
    }
    plain = chart.one(chart.objects({}), "ConfigMap", "capsign-adapter")["data"]["adapter.toml"]
    assert tomllib.loads(plain)["log"].get("retention") is None


def test_the_last_checkpoint_is_kept_outside_postgresql_where_there_is_a_volume() -> None:
    """With SQLite the adapter keeps it beside the database."""

    def published(**adapter: Any) -> str | None:
        rendered = chart.objects({"adapter": adapter})
        config = chart.one(rendered, "ConfigMap", "capsign-adapter")["data"]["adapter.toml"]
        log: dict[str, str] = tomllib.loads(config)["log"]
        return log.get("published_file")

    store, token = HSM["adapter"]["store"], HSM["adapter"]["token"]
    retention = {"retention": {"existingClaim": "evidence", "afterDays": 0}}
    assert published() is None
    assert published(store=store) == "/var/lib/capsign/published.checkpoint"
    assert published(store=store, token=token) is None
    on_the_claim = published(store=store, token=token, log=retention)
    assert on_the_claim == "/var/lib/capsign-cold/published.checkpoint"


def test_more_than_one_replica_has_a_budget() -> None:
    postgresql = {"adapter": {**HSM["adapter"], "replicas": 2}}
    assert (
        chart.one(chart.objects(postgresql), "PodDisruptionBudget", "capsign-adapter")["spec"][
            "maxUnavailable"
        ]
        == 1
    )
    # With one replica it would only keep a node from being drained.
    assert not [
        each
        for each in chart.objects({})
        if (each["kind"], each["metadata"]["name"]) == ("PodDisruptionBudget", "capsign-adapter")
    ]


def test_two_releases_share_no_name() -> None:
    def names(name: str, namespace: str) -> set[tuple[str, str, str]]:
        rendered = chart.objects(
            {"admissionPolicy": {"exec": True, "tokenRequests": True}, "test": {"enabled": False}},
            name,
            namespace,
        )
        return {
            (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"])
            for each in rendered
        }

    assert not names("capsign", "a") & names("capsign", "b")
    assert not names("capsign", "a") & names("other", "a")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"hostNetwork": True}, "hostNetwork is set"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volume v is a hostPath"),
        ({"containers": [{"name": "c", "securityContext": {}}]}, "c: capabilities are not dropped"),
    ],
)
def test_the_check_of_restricted_can_fail(change: dict[str, Any], fault: str) -> None:
    pod = chart.one(chart.objects({}), "Deployment", "capsign-injector")["spec"]["template"]["spec"]
    assert chart.unrestricted(pod) == []
    assert fault in chart.unrestricted({**pod, **change})


def test_the_adapter_refuses_a_bad_policy_before_an_upgrade_changes_anything(
    tmp_path: Path,
) -> None:
    """The old pod of a StatefulSet is gone before the new one reads its policy: a mistake in it
    ended all signing.
    """
    bad = "version: 1\ntrust_domain: cluster.local\ntenants: []\n"
    rendered = chart.objects({"policy": {"document": bad}})
    job = chart.one(rendered, "Job", "capsign-adapter-check")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade,pre-rollback"
    spec = job["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert {next(iter(volume.keys() - {"name"})) for volume in spec["volumes"]} == {
        "emptyDir",
        "configMap",
    }
    files = chart.one(rendered, "ConfigMap", "capsign-adapter-check")["data"]
    assert files == {
        **chart.one(rendered, "ConfigMap", "capsign-adapter")["data"],
        **chart.one(rendered, "ConfigMap", "capsign-policy")["data"],
    }
    policy, toml = tmp_path / "policy.yaml", tmp_path / "adapter.toml"
    policy.write_text(files["policy.yaml"])
    toml.write_text(files["adapter.toml"].replace("/etc/capsign/policy", str(tmp_path)))
    command = [
        sys.executable,
        "-m",
        "capsign_adapter",
        "--config",
        str(toml),
        *spec["containers"][0]["command"][3:],
    ]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "tenants" in refused.stderr


def test_nobody_reaches_more_than_the_ports_that_agents_use() -> None:
    rendered = chart.objects({})
    (rule,) = chart.one(rendered, "NetworkPolicy", "capsign-adapter")["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["tls", "enrolment"]
    (rule,) = chart.one(rendered, "NetworkPolicy", "capsign-injector")["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["https"]
    for name in ("capsign-adapter", "capsign-injector"):
        assert chart.one(rendered, "NetworkPolicy", name)["spec"]["policyTypes"] == [
            "Ingress",
            "Egress",
        ]


@pytest.mark.parametrize(
    ("source", "ports"), [("own", [53, 53, 443, 6443, 7444]), ("cert-manager", [53, 53, 7444])]
)
def test_the_injector_asks_nobody_whom_it_does_not_need(source: str, ports: list[int]) -> None:
    """With a certificate that others make it asks nobody but the adapter, and sees the pods of the
    whole cluster: any port 443 would be a way out for what it sees.
    """
    rendered = chart.objects({"injector": {"certificate": {"source": source}}})
    spec = chart.one(rendered, "NetworkPolicy", "capsign-injector")["spec"]
    assert [port["port"] for rule in spec["egress"] for port in rule["ports"]] == ports
    assert "Egress" in spec["policyTypes"]


def test_every_rule_of_the_admission_policy_says_what_to_do() -> None:
    """A refusal without a way out is answered by turning the policy off."""
    values = {"admissionPolicy": {"tokenRequests": True, "exec": True, "agentImages": ["r/a:1"]}}
    policies = [
        each for each in chart.objects(values) if each["kind"] == "ValidatingAdmissionPolicy"
    ]
    policies = [
        each
        for each in policies
        if each["metadata"]["labels"]["app.kubernetes.io/component"] == "admission"
    ]
    assert len(policies) == 5
    fix = re.compile(r"\b(Remove|Use|Name|Give|Look|Let|Upgrade|move|must be)\b")
    for each in policies:
        # What protects fails closed; what only tells people is in nobody's way.
        assert each["spec"]["failurePolicy"] == (
            "Ignore" if "-asking-" in each["metadata"]["name"] else "Fail"
        )
        for rule in each["spec"]["validations"]:
            for text in {rule["message"], rule.get("messageExpression", rule["message"])}:
                assert "capsign: " in text
                assert fix.search(text), text


def test_nothing_that_cannot_be_changed_differs_from_the_previous_version() -> None:
    """Of a StatefulSet only template, replicas and a few more may be changed; an upgrade that
    changes more is refused.
    """
    changeable = {
        "template",
        "replicas",
        "revisionHistoryLimit",
        "updateStrategy",
        "minReadySeconds",
    }

    def fixed(rendered: list[chart.Object]) -> dict[str, Any]:
        spec = chart.one(rendered, "StatefulSet", "capsign-adapter")["spec"]
        return {key: value for key, value in spec.items() if key not in changeable}

    assert fixed(previous_objects()) == fixed(chart.objects({}))
    # what a claim that is there keeps
    same_size = chart.objects({"adapter": {"persistence": {"size": "1Gi"}}})
    claims = [
        chart.one(each, "PersistentVolumeClaim", "capsign-adapter-data")
        for each in (previous_objects(), same_size)
    ]
    assert claims[0]["spec"] == claims[1]["spec"]
    assert fixed(chart.objects({}))["podManagementPolicy"] == "Parallel"
