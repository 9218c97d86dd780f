"""`capsign inject`: files in, files out, and what a person reads beside them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from capsign_cli import __main__ as cli
from capsign_cli import failures
from support import json_patch, kube_schemas

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "labels": {"capsign.dev/inject": "true"}},
    "spec": {"containers": [{"name": "app", "image": "a"}]},
}
BUNDLE = "-----BEGIN CERTIFICATE-----\nTWFu\n-----END CERTIFICATE-----\n"
TEMPLATE = {"metadata": POD["metadata"], "spec": POD["spec"]}
SELECTOR = {"matchLabels": {"capsign.dev/inject": "true"}}


@pytest.fixture
def run(capsys, tmp_path):
    def call(*arguments, text: object = None, name: str = "in.yaml"):
        if text is not None:
            file = tmp_path / name
            file.write_text(
                text
                if isinstance(text, str)
                else yaml.safe_dump_all(text if isinstance(text, list) else [text])
            )
            arguments = ("-f", str(file), *arguments)
        with pytest.raises(SystemExit) as ended:
            cli.main(["inject", *arguments])
        out = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code, out=out.out, err=out.err)

    return call


def agent_in(pod):
    return pod["spec"]["initContainers"][0]["name"] == "capsign-agent"


KINDS = {
    "Pod": (POD, ()),
    "PodTemplate": ({"apiVersion": "v1", "template": TEMPLATE}, ("template",)),
    **{
        kind: (
            {"apiVersion": "apps/v1", "spec": {"selector": SELECTOR, "template": TEMPLATE}},
            ("spec", "template"),
        )
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
    },
    "ReplicationController": (
        {"apiVersion": "v1", "spec": {"template": TEMPLATE}},
        ("spec", "template"),
    ),
    "Job": ({"apiVersion": "batch/v1", "spec": {"template": TEMPLATE}}, ("spec", "template")),
    "CronJob": (
        {
            "apiVersion": "batch/v1",
            "spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": TEMPLATE}}},
        },
        ("spec", "jobTemplate", "spec", "template"),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_that_makes_pods(kind, run):
    document, path = KINDS[kind]
    document = {**document, "kind": kind, "metadata": document.get("metadata", {"name": "w"})}
    ran = run("-o", "json", text=document)
    after = json.loads(ran.out)
    assert ran.code == 0
    pod = after
    for name in path:
        pod = pod[name]
    assert agent_in(pod)
    assert {
        key: value for key, value in after.items() if key not in ("spec", "template", "metadata")
    } == {
        key: value for key, value in document.items() if key not in ("spec", "template", "metadata")
    }
    if kind != "StatefulSet":  # its schema wants a serviceName
        assert kube_schemas.faults(after) == []
    assert json_patch.apply(document, json.loads(run("-o", "patch", text=document).out)) == after
    assert json.loads(run("-o", "json", text=after).out) == after, "twice is once"


def test_many_documents_and_lists_keep_their_order_and_what_is_not_ours(run):
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 1}]},
    }
    custom = {
        "apiVersion": "x.dev/v1",
        "kind": "Widget",
        "spec": {"template": TEMPLATE, "when": "2026-01-02"},
    }
    listed = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [service, POD, {"apiVersion": "v1", "kind": "List", "items": [POD]}],
    }
    pods = {
        "apiVersion": "v1",
        "kind": "PodList",
        "items": [{key: value for key, value in POD.items() if key != "kind"}],
    }
    ran = run(text=[service, POD, custom, listed, pods])
    after = list(yaml.safe_load_all(ran.out))
    assert ran.code == 0
    assert [one["kind"] for one in after] == ["Service", "Pod", "Widget", "List", "PodList"]
    assert (after[0], after[2], after[3]["items"][0]) == (service, custom, service)
    assert all(
        map(
            agent_in,
            [
                after[1],
                after[3]["items"][1],
                after[3]["items"][2]["items"][0],
                after[4]["items"][0],
            ],
        )
    )


def test_yaml_is_what_a_person_can_read(run):
    text = run(text=POD).out
    assert "value: |\n" in text
    assert "&id" not in text
    assert "!!" not in text


def test_dates_and_octal_modes_are_passed_on(run):
    given = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {day: 2026-01-02, word: "
        "'yes'}\n"
    )
    assert run(text=given).out == given
    assert json.loads(run("-o", "json", text=given).out)["data"] == {
        "day": "2026-01-02",
        "word": "yes",
    }


TEXTS = (
    "1e3",
    "0o17",
    "0x1F",
    "1_000",
    ".5",
    "+.5",
    "-.5",
    "y",
    "N",
    "on",
    "null",
    "~",
    "12e4567",
    "1.2.3.4",
    "007",
)


@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_text_for_kubectl_too(text, run):
    """`1e3` in an annotation came out unquoted: text to Python's YAML, a number to kubectl's, which
    refused the manifest. So did `+.5`.
    """
    assert f"a: '{text}'" in run(text=f"kind: X\nmetadata: {{annotations: {{a: '{text}'}}}}\n").out


@pytest.mark.parametrize("end", ["\x85", "\u2028", "\u2029"])
def test_what_ends_a_line_in_yaml_comes_back_as_it_was(end, run):
    """Of these, the first came back as a space from a quoted text, and as an ordinary end of a line
    from a block.
    """
    given = [f"a{end}b", f"a\nb{end}c"]
    out = run(text=json.dumps({"kind": "X", "v": given}), name="in.json").out
    assert yaml.safe_load(out)["v"] == given


NUMBERS = {
    "1e3": 1000,
    "1E-3": 0.001,
    "0o17": 15,
    "017": 15,
    "09": 9,
    "0x1f": 31,
    "-0b11": -3,
    "1_000": 1000,
    "+.5": 0.5,
}


def test_what_is_a_number_to_kubectl_is_one(run):
    """`defaultMode: 0o644` came out as the text `'0o644'`. Values by sigs.k8s.io/yaml 1.6.0."""
    items = ", ".join(NUMBERS)
    text = f"kind: X\nmany: [{items}]\nbool: [y, No, on]\ntext: [12e4567, 0b2, 0x_, 1e, 08b]\n"
    after = json.loads(run("-o", "json", text=text).out)
    assert after["many"] == list(NUMBERS.values())
    assert after["bool"] == [True, False, True]
    assert after["text"] == ["12e4567", "0b2", "0x_", "1e", "08b"]


def test_what_is_text_to_kubectl_is_not_made_a_number(run):
    """`startTime: 22:30` of an object that only passed through came out as `1350`: minutes, in YAML
    1.1. And `=`, which YAML 1.1 gives a meaning of its own, ended with "is not YAML".
    """
    given = (
        "startTime: 22:30, ratio: 1:30.5, long: -190:20:30, is: =, port: 8080, share: 0.5, "
        "large: 1_000"
    )
    spec = {
        "startTime": "22:30",
        "ratio": "1:30.5",
        "long": "-190:20:30",
        "is": "=",
        "port": 8080,
        "share": 0.5,
        "large": 1000,
    }
    text = f"kind: Silence\nspec: {{{given}}}\n"
    assert run(text=text).out == text
    assert json.loads(run("-o", "json", text=text).out)["spec"] == spec


def test_standard_input(run, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(json.dumps(POD).encode())))
    assert agent_in(yaml.safe_load(run("-f", "-").out))


def test_what_people_should_know_goes_to_standard_error(run):
    odd = {
        **POD,
        "metadata": {
            **POD["metadata"],
            "namespace": "shop",
            "annotations": {"capsign.dev/loglevel": "x"},
        },
    }
    ran = run(text=odd)
    assert "Did you mean `capsign.dev/log-level`?" in ran.err
    assert "Pod p: app may sign as spiffe://cluster.example/ns/shop/sa/default" in ran.err
    assert "--bundle" in ran.err
    assert "spiffe" not in ran.out


def test_the_service_account_may_be_named_as_it_was_called_before(run):
    """`serviceAccount`, deprecated, counts where `serviceAccountName` is not given; "may sign as
    …/sa/default" was wrong.
    """
    spec = {**POD["spec"], "serviceAccount": "orders"}
    assert "/sa/orders" in run(text={**POD, "spec": spec}).err
    assert "/sa/newer" in run(text={**POD, "spec": {**spec, "serviceAccountName": "newer"}}).err


def test_a_pod_that_names_pull_secrets_for_the_first_time_loses_those_of_its_account(run, tmp_path):
    """Kubernetes copies a service account's pull secrets only into a pod that names none, and looks
    before the webhook does. A template that was injected offline names one already: the
    application's own image could no longer be pulled.
    """
    settings = tmp_path / "settings.yaml"
    settings.write_text("image_pull_secrets: [registry]\n")
    assert "names pull secrets now" in run("--settings", str(settings), text=POD).err
    named = {**POD, "spec": {**POD["spec"], "imagePullSecrets": [{"name": "mine"}]}}
    assert "names pull secrets" not in run("--settings", str(settings), text=named).err


def test_nothing_to_do_is_said(run):
    bare = {**POD, "metadata": {"name": "p"}}
    ran = run(text=bare)
    assert (ran.code, yaml.safe_load(ran.out)) == (0, bare)
    assert "no pod carries the label" in ran.err
    assert run("-o", "patch", text=bare).out == "[]\n"


def test_a_label_on_the_workload_is_pointed_out(run):
    wrong = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": POD["metadata"],
        "spec": {"template": {"metadata": {}, "spec": POD["spec"]}},
    }
    assert "put it on spec.template.metadata" in run(text=wrong).err


def test_a_refusal_is_exit_code_1_with_the_file_and_the_object(run):
    ran = run(text={**POD, "spec": {**POD["spec"], "hostPID": True}})
    assert (ran.code, ran.out) == (failures.REFUSED, "")
    assert "in.yaml: Pod p: With `hostPID`" in ran.err
    assert "Remove `hostPID`" in ran.err


def test_settings_and_bundle(run, tmp_path):
    (tmp_path / "s.yaml").write_text(
        "profiles: {default: {log_level: error}, night: {namespaces: [build]}}"
    )
    (tmp_path / "b.pem").write_text(BUNDLE)
    options = ("--settings", str(tmp_path / "s.yaml"), "--bundle", str(tmp_path / "b.pem"))
    ran = run(*options, text=POD)
    assert BUNDLE.splitlines()[1] in ran.out
    assert 'log_level = "error"' in ran.out
    assert "--bundle" not in ran.err
    night = {
        **POD,
        "metadata": {**POD["metadata"], "annotations": {"capsign.dev/profile": "night"}},
    }
    assert run(*options, text=night).code == failures.REFUSED
    assert run(*options, "-n", "build", text=night).code == 0


def test_where_identities_come_from_elsewhere_nobody_is_asked_for_a_bundle(run, tmp_path):
    assert "--bundle" in run(text=POD).err
    (tmp_path / "s.yaml").write_text(
        "identity: {source: workload-api, csi: {driver: csi.spiffe.io}}"
    )
    ran = run("--settings", str(tmp_path / "s.yaml"), text=POD)
    assert "csi.spiffe.io" in ran.out
    assert "--bundle" not in ran.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "not YAML at line"),
        ("just text", "without a `kind`"),
        ("- kind: Pod", "without a `kind`"),
        ("kind: 7", "without a `kind`"),
        ("kind: " + "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("a: !!python/object/apply:os.system [ls]", "without a `kind`"),
        ("kind: A\na: &a [*a]\n", "a value that holds itself: *a"),
        (
            "kind: A\nx: &x1 [1, 2, 3]\n"
            + "".join(f"x{n}: &x{n + 1} [{f'*x{n}, ' * 10}]\n" for n in range(1, 9)),
            "more than 2000000",
        ),
        ("kind: A\nx: *unknown\n", "not YAML at line 2"),
        ("kind: A\n---\n" * 10_001, "10001 documents"),
    ],
)
def test_what_is_no_manifest(text, says, run):
    ran = run(text=text)
    assert (ran.code, ran.out) == (failures.USAGE, "")
    assert says in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "options",
    [
        ("--settings", "/nonexistent"),
        ("--bundle", "/nonexistent"),
        ("--bundle", "/dev/null"),
        ("-f", "/nonexistent"),
        ("-o", "toml"),
    ],
)
def test_wrong_use(options, run):
    ran = run(*options, text=POD)
    assert (ran.code, ran.out) == (failures.USAGE, "")


def test_wrong_settings_are_named(run, tmp_path):
    (tmp_path / "s.yaml").write_text("audienc: x")
    assert "Did you mean `audience`?" in run("--settings", str(tmp_path / "s.yaml"), text=POD).err


def test_what_has_to_be_written_anew_is_told(run):
    text = yaml.safe_dump(POD).replace("spec:", "spec: &s # mine") + "also: *s\n"
    ran = run(text=text)
    assert "Pod p: an anchor, an alias or a repeated key" in ran.err
    assert "written anew" not in run(text=yaml.safe_dump(POD)).err
    after = yaml.safe_load(ran.out)
    assert agent_in(after)
    assert after["also"] == POD["spec"]


def test_anchors_are_for_saying_things_once(run):
    text = "kind: X\na: &a {b: &b [1, 2], c: *b}\nd: [*a, *a]\n---\nkind: Z\na: &a 1\nb: *a\n"
    x, y = yaml.safe_load_all(run(text=text).out)
    assert x == {
        "kind": "X",
        "a": {"b": [1, 2], "c": [1, 2]},
        "d": [{"b": [1, 2], "c": [1, 2]}] * 2,
    }
    assert y == {"kind": "Z", "a": 1, "b": 1}


def test_without_the_injector_it_is_said_what_to_install(run, monkeypatch):
    """The adapter's image has the command and not the injector: people saw a traceback."""
    for name in [name for name in sys.modules if name.split(".")[0] == "capsign_injector"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "capsign_injector", None)
    ran = run(text=POD)
    assert (ran.code, ran.out) == (failures.USAGE, "")
    assert "There is no injector in this installation" in ran.err
    assert "pip install capsign-cli" in ran.err


def test_a_patch_is_for_one_object(run):
    ran = run("-o", "patch", text=[POD, POD])
    assert (ran.code, ran.out) == (failures.USAGE, "")
    assert "2 objects would change" in ran.err


def test_the_difference_shows_what_changes_and_nothing_else(run):
    ran = run("--diff", text=[{"kind": "Service", "metadata": {"name": "s"}}, POD])
    assert ran.out.startswith("── Pod p")
    assert "+  initContainers:" in ran.out
    assert "+    - name: CAPSIGN_SOCKET" in ran.out
    assert not [line for line in ran.out.splitlines() if line.startswith("-")]
    assert "Service" not in ran.out


def ends(arguments, stdout):
    """How `capsign` ends when its output goes there; small output is written when the process ends,
    if not before.
    """
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "capsign_cli", *arguments]
    ran = subprocess.run(
        command,
        input=json.dumps(POD).encode(),
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        env=environ,
    )
    return ran.returncode, ran.stderr.decode()


INJECTING = ["inject", "-f", "-"]
PRINTING = [INJECTING, [*INJECTING, "-o", "patch"], [*INJECTING, "--diff"], ["completion", "bash"]]


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_reader_that_goes_away_ends_it_as_in_any_shell(arguments):
    """`capsign inject ... | head -1` was exit code 120, with lines of Python's about an exception
    that it ignored.
    """
    reader, writer = os.pipe()
    os.close(reader)
    try:
        code, err = ends(arguments, writer)
    finally:
        os.close(writer)
    assert code == failures.CUT_OFF
    assert "Exception" not in err


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_full_disk_is_told_once(arguments):
    with Path("/dev/full").open("w") as full:
        code, err = ends(arguments, full)
    assert code in {failures.UNKNOWN, failures.UNAVAILABLE}
    assert "No space left on device" in err
    assert "Exception" not in err


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_another_alphabet_changes_no_manifest(kind):
    """In a latin-1 locale a dash in a manifest came out as the six letters `\\u2014`, and was
    applied as that.
    """
    given = {"kind": "ConfigMap", "data": {"text": "\u2014 \u00e9 \U0001f511"}}
    command = [sys.executable, "-m", "capsign_cli", *INJECTING, "-o", kind]
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    text = json.dumps(given, ensure_ascii=False).encode()
    ran = subprocess.run(command, input=text, capture_output=True, check=True, env=environ)
    assert yaml.safe_load(ran.stdout.decode()) == given
