"""The grants that the document of a policy gives, for whoever asks whose key an agent's record was
about. The document is one that was in force: its digest stands in the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

MAX_LEN = 16 * 1024 * 1024
"""Longest document that is read, bytes; adapters take shorter ones."""

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
"""Text remains text: a key that is called 1e3 is no number."""


def grants_in(document: bytes) -> Iterator[tuple[str, str, str]]:
    """Grant, tenant and key of each. Raises ValueError if it is no such document."""
    if len(document) > MAX_LEN:
        raise ValueError("the document of a policy is too long")
    try:
        read = yaml.load(document, Loader=_LOADER)  # noqa: S506 - makes text, lists and mappings
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("this is no policy") from error
    grants = read.get("grants", []) if isinstance(read, dict) else None
    if not isinstance(grants, list):
        raise ValueError("this is no policy")
    for grant in grants:
        name, tenant, key = (
            grant.get(part) if isinstance(grant, dict) else None
            for part in ("name", "tenant", "key")
        )
        if not (isinstance(name, str) and isinstance(tenant, str) and isinstance(key, str)):
            raise ValueError("a grant without name, tenant or key")
        yield name, tenant, key
