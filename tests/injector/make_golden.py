"""Writes what injection makes of every pod in `pods/` into `golden/`: `make golden`.

test_pods.py says when that should be done; read the difference before you commit it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from capsign_cli.manifests import load, templates
from capsign_injector.build.patch import diff
from capsign_injector.inject import inject
from capsign_injector.refusal import Refusal
from capsign_injector.settings import parse

HERE = Path(__file__).parent
BUNDLE = (
    "-----BEGIN "
    "CERTIFICATE-----\n"
    "TWFuIGlzIGRpc3Rpbmd1aXNoZWQsIG5vdCBvbmx5IGJ5IGhpcyByZWFzb24=\n"
    "-----END CERTIFICATE-----\n"
)


def sources() -> list[Path]:
    """The manifests."""
    return sorted((HERE / "pods").glob("*.yaml"))


def target(source: Path) -> Path:
    """Where the result for a manifest is."""
    return HERE / "golden" / source.name


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def dump(document: Any) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)


def golden(source: Path) -> str:
    """What injection makes of it, as text."""
    settings = parse((HERE / "settings.yaml").read_bytes(), "settings.yaml")
    (document,) = (
        one.value for one in load(source.read_bytes(), source.name) if one.value is not None
    )
    after: Any = document
    told: dict[str, Any] = {}
    for place in templates(document):
        try:
            result = inject(place.pod, place.namespace or "default", settings, BUNDLE)
        except Refusal as refusal:
            return dump(
                {
                    "refused": str(refusal.reason),
                    "field": refusal.field,
                    "sentence": refusal.sentence,
                }
            )
        after = place.replaced(after, result.pod)
        told.setdefault("containers", []).extend(result.containers)
        told.setdefault("warnings", []).extend(result.warnings)
    return dump({**told, "patch": diff(document, after)})


def main() -> None:
    for source in sources():
        target(source).parent.mkdir(exist_ok=True)
        target(source).write_text(golden(source))
    for left in set((HERE / "golden").glob("*.yaml")) - {target(source) for source in sources()}:
        left.unlink()


if __name__ == "__main__":
    main()
