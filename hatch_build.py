"""Build hook of the distributions: they ask for each other in exactly their own version.

The version stands once, in `capsign_wire`, so requirements among ourselves cannot be literals.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SameRelease(BuildHookInterface[Any]):
    """Adds the `siblings` of a distribution, and those of its extras, to its requirements."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before a wheel is built, an editable one too. `version` is the kind of wheel."""
        release = self.metadata.version
        needed = [f"{name}=={release}" for name in self.config["siblings"]]
        for extra, names in self.config.get("extras", {}).items():
            needed += [f"{name}=={release}; extra == '{extra}'" for name in names]
        build_data["dependencies"] += needed
