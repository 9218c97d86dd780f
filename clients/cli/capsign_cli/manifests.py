"""Kubernetes manifests: documents of a file, and where in them the pods are. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from capsign_cli.failures import USAGE, CliError

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"), ("spec", "template")
    ),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""Where the pod is in each kind that makes pods."""

LABEL = "capsign.dev/inject"
MAX_DOCUMENTS = 10_000
"""Most objects taken at once."""
MAX_DEPTH = 200
"""Deepest nesting; a manifest has about 20."""
MAX_NODES = 2_000_000
"""Most values in a file, with each alias written out."""


@dataclass(frozen=True, slots=True)
class Place:
    """A pod, or a pod's template, in a document."""

    path: tuple[str | int, ...]
    kind: str
    owner: Mapping[str, Any]
    pod: Mapping[str, Any]

    @property
    def _metadata(self) -> Mapping[str, Any]:
        found = self.owner.get("metadata")
        return found if isinstance(found, Mapping) else {}

    @property
    def title(self) -> str:
        return f"{self.kind} {self._metadata.get('name') or self._metadata.get('generateName') or '(no name)'}"

    @property
    def namespace(self) -> str:
        return str(self._metadata.get("namespace") or "")

    def replaced(self, document: Any, pod: Mapping[str, Any]) -> Any:
        """The document with that pod in this place; the document that was given is not changed."""
        return _replaced(document, self.path, pod)


def load(data: bytes, source: str) -> list[Any]:
    """The documents of a YAML or JSON file; empty ones are left out. Raises CliError."""
    try:
        _refuse_bombs(data, source)
        documents = [one for one in yaml.load_all(data, Loader=_Loader) if one is not None]
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise CliError(USAGE, "NOT_YAML", f"{source} is not YAML{where}.", "Correct it there.") from None
    if len(documents) > MAX_DOCUMENTS:
        raise CliError(USAGE, "TOO_LARGE", f"{source} has {len(documents)} documents.", "Split the file.")
    for one in documents:
        if not isinstance(one, dict) or not isinstance(one.get("kind"), str):
            raise CliError(USAGE, "NO_MANIFEST", f"{source} holds a document without a `kind`.", "Is it a Kubernetes manifest?")
    return documents


def _refuse_bombs(data: bytes, source: str) -> None:
    """Before anything is built. libyaml's composer recurses on the C stack, and a deep file would end the process; a few lines of
    aliases of aliases become gigabytes when they are written out, and one of itself never ends."""
    open_nodes: list[tuple[str | None, int]] = []
    sizes: dict[str | None, int] = {}
    size = 0
    for event in yaml.parse(data, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise CliError(USAGE, "NOT_YAML", f"{source} has a value that holds itself: *{event.anchor}.", "Write it out.")
            size += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.NodeEvent):
            size += 1
            open_nodes.append((event.anchor, size))
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = size - before + 1
        if len(open_nodes) > MAX_DEPTH:
            raise CliError(USAGE, "NOT_YAML", f"{source} is nested too deeply.", "Is it the right file?")
        if size > MAX_NODES:
            raise CliError(USAGE, "TOO_LARGE", f"{source} has more than {MAX_NODES} values.", "Split the file.")


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc] # chosen at run time
    """Plain scalars as kubectl reads them, which differs from Python's YAML 1.1: `22:30` is text there and the number 1350 here,
    `1e3` a number there and text here. What only passes through must come out as it would have been read."""


_Loader.bool_values = {**yaml.SafeLoader.bool_values, "y": True, "n": False}
_Loader.yaml_implicit_resolvers = {}
# go.yaml.in/yaml/v2, resolve.go. The first that matches counts. What is too large for a float is text to both.
for _tag, _form, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", [*"yYnNtTfFoO"]),
    ("int", r"[-+]?(0b_*[01][01_]*|0o?_*[0-7][0-7_]*|0|[1-9][0-9_]*|0x_*[0-9a-fA-F][0-9a-fA-F_]*)", [*"-+0123456789"]),
    ("float", r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]{1,2})?", [*"-+.0123456789"]),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", [*"-+."]),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_form})$"), _first)


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_ELSEWHERE = re.compile(r"[-+]?[.]?[0-9][0-9A-Fa-fxXoO_.+-]*|[yYnN]")
"""Plain text that kubectl's YAML would take for a number or a truth value, and Python's would not."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else "'" if _ELSEWHERE.fullmatch(text) else None
    if set(text) & {"\x85", "\u2028", "\u2029"}:  # line ends in YAML 1.1; escaped, they come back as they were
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump(documents: Sequence[Any], kind: str) -> str:
    """The documents as YAML, or as JSON: one object, or a List of several."""
    if kind == "yaml":
        text: str = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)
        return text
    whole = documents[0] if len(documents) == 1 else {"apiVersion": "v1", "kind": "List", "items": list(documents)}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def templates(document: Any, path: tuple[str | int, ...] = ()) -> Iterator[Place]:
    """Every pod in a document; those of a List one after the other."""
    if not isinstance(document, Mapping):
        return
    kind = str(document.get("kind"))
    items = document.get("items")
    if kind.endswith("List") and isinstance(items, list):
        for index, item in enumerate(items):
            one = item if not isinstance(item, Mapping) or "kind" in item else {"kind": kind.removesuffix("List"), **item}
            yield from templates(one, (*path, "items", index))
        return
    if kind not in TEMPLATES:
        return
    pod: Any = document
    for name in TEMPLATES[kind]:
        pod = pod.get(name) if isinstance(pod, Mapping) else None
    if isinstance(pod, Mapping):
        yield Place((*path, *TEMPLATES[kind]), kind, document, pod)


def label_misplaced(place: Place) -> bool:
    """Whether the workload carries the label that its pods should."""
    metadata = place.owner.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    return place.kind != "Pod" and isinstance(labels, Mapping) and labels.get(LABEL) is not None


def _replaced(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    if not path:
        return value
    first, rest = path[0], path[1:]
    changed: Any = list(document) if isinstance(document, list) else dict(document)
    changed[first] = _replaced(document[first], rest, value)
    return changed
