"""Pods as people write them: what injection makes of each is on file, and a difference is
somebody's decision.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from capsign_cli.manifests import load, templates
from capsign_injector.inject import inject
from capsign_injector.refusal import Refusal
from support import json_patch, kube_schemas, pod_security

MAKER = runpy.run_path(str(Path(__file__).with_name("make_golden.py")))
SOURCES = MAKER["sources"]()


def only(data, name):
    """The one object in a file."""
    (value,) = [one.value for one in load(data, name) if one.value is not None]
    return value


def test_there_are_enough_and_each_has_its_result():
    assert len([one for one in SOURCES if not one.name.startswith("refused-")]) >= 25
    assert {MAKER["target"](one).name for one in SOURCES} == {
        one.name for one in MAKER["target"](SOURCES[0]).parent.iterdir()
    }


@pytest.mark.parametrize("source", SOURCES, ids=lambda one: one.stem)
def test_the_result_is_the_one_on_file(source):
    assert MAKER["target"](source).read_text() == MAKER["golden"](source), "run `make golden`"


@pytest.mark.parametrize("source", SOURCES, ids=lambda one: one.stem)
def test_the_patch_on_file_is_valid_kubernetes_and_does_not_grow(source, settings, bundle):
    document = only(source.read_bytes(), source.name)
    golden = only(b"kind: golden\n" + MAKER["target"](source).read_bytes(), "golden")
    assert ("refused" in golden) == source.name.startswith("refused-")
    for one in document["items"] if document["kind"] == "List" else [document]:
        assert kube_schemas.faults(one) == []
    if "refused" in golden:
        return
    patched = json_patch.apply(document, golden["patch"])
    for one in patched["items"] if patched["kind"] == "List" else [patched]:
        assert kube_schemas.faults(one) == []
    for before, after in zip(templates(document), templates(patched), strict=True):
        again = inject(after.pod, after.namespace or "default", settings, bundle)
        assert again.pod == after.pod
        if not pod_security.violations(before.pod):
            assert pod_security.violations(after.pod) == []


def test_every_refusal_names_a_field_and_a_fix(settings, bundle):
    for source in SOURCES:
        if source.name.startswith("refused-"):
            document = only(source.read_bytes(), source.name)
            with pytest.raises(Refusal) as caught:
                inject(document, "shop", settings, bundle)
            assert caught.value.field
            assert caught.value.sentence.endswith((".", ")"))
