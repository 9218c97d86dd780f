"""The table of values in k8s/README.md is made from values.yaml, where each value has its
comment.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from support import chart


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "chart_docs", chart.REPOSITORY / "k8s" / "chart_docs.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["chart_docs"] = module
    spec.loader.exec_module(module)
    return module


def test_the_table_is_what_values_say(docs: ModuleType) -> None:
    assert docs.main(["--check"]) == 0


def test_every_value_has_a_row(docs: ModuleType) -> None:
    paths = [path for path, _, _ in docs.rows(docs.VALUES.read_text())]
    assert len(paths) == len(set(paths)) > 100
    assert {
        "adapter.replicas",
        "agent.profiles.default.maySet",
        "injector.certificate.issuerRef.kind",
    } <= set(paths)


def test_a_value_without_a_comment_is_found(docs: ModuleType) -> None:
    with pytest.raises(docs.DocsError, match=r"adapter\.new has no comment"):
        list(docs.rows("adapter:\n  # -- Known.\n  old: 1\n  new: 2\n"))
