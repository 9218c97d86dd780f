from __future__ import annotations

import copy

import pytest
from capsign_injector.build import patch
from hypothesis import given
from hypothesis import strategies as st
from support import json_patch

KEYS = st.sampled_from(["a", "b", "~", "/", "~1", "a/b~", "", "name", "mountPath", "0", "-"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "y"]) | st.just(1.0),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
NAMED = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abcdef"), "v": st.integers(0, 2)}),
    max_size=6,
    unique_by=lambda one: one["name"],
)


def ordered(value):
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value)}
    return [ordered(one) for one in value] if isinstance(value, list) else value


@given(JSON, JSON)
def test_any_document_becomes_any_other(before, after):
    kept = copy.deepcopy((before, after))
    operations = patch.diff({"x": before}, {"x": after})
    assert repr(ordered(json_patch.apply({"x": before}, operations))) == repr(ordered({"x": after}))
    assert (before, after) == kept
    assert (operations == []) == (repr(ordered(before)) == repr(ordered(after)))


@given(NAMED, NAMED)
def test_lists_of_named_things(before, after):
    assert json_patch.apply(before, patch.diff(before, after)) == after


@pytest.mark.parametrize(
    ("before", "after", "operations"),
    [
        (
            [{"name": "b"}],
            [{"name": "a"}, {"name": "b"}],
            [{"op": "add", "path": "/0", "value": {"name": "a"}}],
        ),
        (
            [{"name": "b"}, {"name": "a", "x": 1}],
            [{"name": "a", "x": 2}, {"name": "b"}],
            [
                {"op": "move", "from": "/1", "path": "/0"},
                {"op": "replace", "path": "/0/x", "value": 2},
            ],
        ),
        ({"a": {"b/c": 1}}, {"a": {}}, [{"op": "remove", "path": "/a/b~1c"}]),
        ({"a": 1}, {"a": True}, [{"op": "replace", "path": "/a", "value": True}]),
        ([1, 2, 3], [1, 3], [{"op": "remove", "path": "/1"}]),
        ([1, 3], [1, 2, 3], [{"op": "add", "path": "/1", "value": 2}]),
        ({"a": None}, {"a": []}, [{"op": "replace", "path": "/a", "value": []}]),
        ({}, {"~/": 0}, [{"op": "add", "path": "/~0~1", "value": 0}]),
        (
            [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}],
            [{"name": "v", "mountPath": "/b"}],
            [{"op": "remove", "path": "/0"}],
        ),
    ],
)
def test_the_patch_is_small(before, after, operations):
    assert patch.diff(before, after) == operations
