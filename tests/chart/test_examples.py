"""The files that docs/operations/kubernetes.md and k8s/README.md tell people to use."""

from __future__ import annotations

import re

import kubernetes_validate
import pytest
import yaml
from capsign_adapter.decide.policy import Role
from capsign_adapter.decide.policy_load import parse_policy
from support import chart

EXAMPLES = chart.REPOSITORY / "docs" / "examples" / "kubernetes"
WORKLOADS = ("job.yaml", "deployment.yaml", "signing.yaml")
GUIDES = (
    chart.REPOSITORY / "k8s" / "README.md",
    chart.REPOSITORY / "docs" / "operations" / "kubernetes.md",
    chart.REPOSITORY / "docs" / "operations" / "responders.md",
)


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_are_taken_by_a_restricted_namespace(name: str) -> None:
    (workload,) = yaml.safe_load_all((EXAMPLES / name).read_text())
    for version in ("1.35", "1.36", "1.37"):
        kubernetes_validate.validate(workload, version, strict=True)
    ((_, spec),) = chart.pod_specs([workload])
    assert chart.unrestricted(spec) == []
    assert workload["spec"]["template"]["metadata"]["labels"]["capsign.dev/inject"] == "true"
    images = {container["image"] for container in spec["containers"]}
    assert images == {f"localhost/capsign-adapter:{chart.chart().metadata['appVersion']}"}


def test_policy_profiles_and_workloads_fit_together() -> None:
    document = (EXAMPLES / "policy.yaml").read_text()
    policy = parse_policy(document.encode())
    values = {
        "policy": {"document": document},
        **yaml.safe_load((EXAMPLES / "profiles.yaml").read_text()),
    }
    chart.manifests(values)
    grants = {grant.name for grant in policy.grants}
    for profile in values["agent"]["profiles"].values():
        assert set(profile["grants"]) <= grants
    annotations = yaml.safe_load((EXAMPLES / "deployment.yaml").read_text())["spec"]["template"][
        "metadata"
    ]["annotations"]
    assert annotations["capsign.dev/profile.hooks"] in values["agent"]["profiles"]
    # `helm test` signs with this purpose whatever the policy; the first pod does too.
    defaults = chart.chart().values["test"]
    workload = f"spiffe://{policy.trust_domain}/ns/capsign-test/sa/capsign-test"
    assert [
        grant
        for grant in policy.grants
        if grant.purpose == defaults["purpose"] and workload in grant.workloads
    ]


def test_two_people_of_the_policy_can_lift_a_revocation() -> None:
    """It named no approver: a grant that was revoked there stayed so for ever."""
    policy = parse_policy((EXAMPLES / "policy.yaml").read_bytes())
    assert frozenset({Role.APPROVER}) in policy.roles.values()
    people = {f"issue {role.value} {who}" for who, roles in policy.roles.items() for role in roles}
    issued = (chart.REPOSITORY / "docs" / "operations" / "responders.md").read_text()
    assert people <= set(issued.splitlines()), "the page gives each of them a certificate"


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_guides_name_files_and_objects_that_are_there(guide: object) -> None:
    text = guide.read_text()
    for path in re.findall(
        r"(?:docs|k8s)/[\w./-]+", "\n".join(re.findall(r"```bash test\n(.*?)```", text, re.DOTALL))
    ):
        assert (chart.REPOSITORY / path).exists(), path
    rendered = {(each["kind"].lower(), each["metadata"]["name"]) for each in chart.objects({})}
    for kind, name in re.findall(
        r"\b(statefulset|deployment|job|configmap|secret|persistentvolumeclaim)/(capsign[\w-]*)",
        text,
    ):
        with_postgresql = {("deployment", "capsign-adapter")}
        assert (kind, name) in rendered | with_postgresql, f"{kind}/{name}"


def _named_by(policy: bytes) -> set[str]:
    """Workloads that a policy gives a grant."""
    return {one for grant in parse_policy(policy).grants for one in grant.workloads}


def test_examples_run_under_an_account_that_the_policy_names() -> None:
    """A page told people to patch a Deployment whose account no policy named: its pods got their
    agent, and nothing signed.
    """
    sample = chart.one(chart.objects({}), "ConfigMap", "capsign-policy")["data"]["policy.yaml"]
    own = (EXAMPLES / "policy.yaml").read_text()
    for name in WORKLOADS:
        (workload,) = yaml.safe_load_all((EXAMPLES / name).read_text())
        ((_, spec),) = chart.pod_specs([workload])
        identity = f"spiffe://cluster.local/ns/shop/sa/{spec['serviceAccountName']}"
        assert identity in _named_by(sample.encode()) & _named_by(own.encode()), name
    readme = (chart.REPOSITORY / "README.md").read_text()
    ((account, namespace),) = re.findall(
        r"service account, `(\w+)` in the namespace `(\w+)`", readme
    )
    assert f"spiffe://cluster.local/ns/{namespace}/sa/{account}" in _named_by(sample.encode())
    ((deployment, where),) = re.findall(r"kubectl patch deployment (\w+) --namespace (\w+)", readme)
    assert (deployment, where) == (account, namespace), "its account is called as it is"


def test_values_in_the_readme_are_good() -> None:
    text = GUIDES[0].read_text()
    (block,) = re.findall(r"```yaml\n(# production.*?)```", text, re.DOTALL)
    chart.manifests(yaml.safe_load(block))
