"""ValidatingAdmissionPolicies of the chart, judged as an API server does, by CEL's own evaluator.

What it does not do: match bindings, count costs, or check types as the API server does when a
policy is made. The tests on a real API server (`tests/system/cluster/test_admission_policy.py`) do.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from cel_expr_python import cel

Policy = Mapping[str, Any]

_NAMES = ("object", "oldObject", "request", "variables")
_ENVIRONMENT = cel.NewEnv(variables=dict.fromkeys(_NAMES, cel.Type.DYN))


@functools.cache
def _compiled(expression: str) -> cel.Expression:
    return _ENVIRONMENT.compile(expression)


class EvaluationError(Exception):
    """The expression has no value for this object."""


def value(expression: str, given: Mapping[str, Any]) -> Any:
    """What the expression is, with these variables. Raises EvaluationError."""
    result = _compiled(expression).eval(data=dict(given))
    if result.type() == cel.Type.ERROR:
        raise EvaluationError(f"{expression}: {result}")
    return result.plain_value()


def refusals(policy: Policy, request: Mapping[str, Any], new: Any, old: Any = None) -> list[str]:
    """Messages with which the policy refuses this; empty: it takes it. What cannot be evaluated
    raises EvaluationError, which for an API server would be a refusal, as the failure policy says.
    """
    spec = policy["spec"]
    given: dict[str, Any] = {
        "object": new,
        "oldObject": old,
        "request": dict(request),
        "variables": {},
    }
    (rule,) = spec["matchConstraints"]["resourceRules"]
    resource = "/".join(
        part for part in (request.get("resource"), request.get("subResource")) if part
    )
    if resource not in rule["resources"] or request["operation"] not in rule["operations"]:
        return []
    if not all(value(one["expression"], given) for one in spec.get("matchConditions", [])):
        return []
    for one in spec.get("variables", []):
        given["variables"][one["name"]] = value(one["expression"], given)
    return [
        value(one["messageExpression"], given) if "messageExpression" in one else one["message"]
        for one in spec["validations"]
        if not value(one["expression"], given)
    ]
