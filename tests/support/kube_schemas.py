"""The strict schemas of the Kubernetes releases that are supported, as validators that are made
once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
from referencing import Registry, Resource

RELEASES = ("1.35.0", "1.36.0", "1.37.0")


def faults(document: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest, in any supported release."""
    name = f"{document['kind'].lower()}-{document['apiVersion'].replace('/', '-')}"
    return [
        f"{release}: {'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for release in RELEASES
        for error in _validator(release, name).iter_errors(document)
    ]


@cache
def _validator(release: str, name: str) -> Any:
    def contents(file: str) -> Any:
        return kubernetes_validate.utils.schema_contents(
            f"kubernetes-json-schema/v{release}-local-strict/{file}", release
        )

    schema = contents(f"{name}.json")
    registry: Any = Resource.from_contents(contents("_definitions.json")) @ (
        Resource.from_contents(schema) @ Registry()
    )
    return jsonschema.Draft202012Validator(schema, registry=registry)
