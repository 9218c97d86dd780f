"""Kubernetes manifests: the documents of a file, and the pods in them. Pure."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import yaml

from capsign_cli import go_yaml, manifest_edit
from capsign_cli.failures import USAGE, CliError
from capsign_cli.go_yaml import TooLargeError, UnreadableError
from capsign_cli.manifest_stream import Piece, pieces

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"),
        ("spec", "template"),
    ),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""Path of the pod template in each kind that makes pods."""

LABEL = "capsign.dev/inject"
MAX_DOCUMENTS = 10_000
"""Most objects that are read at once."""


@dataclass(frozen=True, slots=True)
class Place:
    """A pod or pod template in a document."""

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
        return (
            f"{self.kind} "
            f"{self._metadata.get('name') or self._metadata.get('generateName') or '(no name)'}"
        )

    @property
    def namespace(self) -> str:
        return str(self._metadata.get("namespace") or "")

    def replaced(self, document: Any, pod: Mapping[str, Any]) -> Any:
        """A copy of the document with that pod in this place."""
        return _replaced(document, self.path, pod)


@dataclass(frozen=True)
class Document:
    """A manifest, its place in the file, and what it is to become."""

    file: int
    piece: Piece
    before: Any
    after: Any

    @property
    def changed(self) -> bool:
        return self.after is not self.before

    @cached_property
    def _edited(self) -> str | None:
        if self.piece.text is None or self.piece.root is None:
            return None
        return manifest_edit.edited(
            self.piece.text, self.piece.root, self.before, self.after, written
        )

    @property
    def written_anew(self) -> bool:
        """Whether it had to be written anew, without its comments and formatting."""
        return self.piece.text is not None and self.changed and self._edited is None

    def texts(self) -> tuple[str, str]:
        """The document before and after, as YAML; before in its own formatting if it was YAML."""
        before = self.piece.text
        if before is not None and not self.changed:
            return before, before
        if before is None or self._edited is None:
            return written(self.before), written(self.after)
        return before, self._edited


def load(data: bytes, source: str) -> list[Piece]:
    """The parts of a file as kubectl reads it; those with a value are objects. Raises CliError."""
    try:
        found = pieces(data)
    except UnreadableError as error:
        where = f" at line {error.line}" if error.line else ""
        raise CliError(
            USAGE,
            "NOT_YAML",
            f"{source} {error}{where}.",
            "kubectl would not read it either. Correct it.",
        ) from None
    except TooLargeError as error:
        raise CliError(USAGE, "TOO_LARGE", f"{source} {error}.", "Split the file.") from None
    documents = [one for one in found if one.value is not None]
    if len(documents) > MAX_DOCUMENTS:
        raise CliError(
            USAGE, "TOO_LARGE", f"{source} has {len(documents)} documents.", "Split the file."
        )
    for one in documents:
        if not isinstance(one.value, dict) or not isinstance(one.value.get("kind"), str):
            raise CliError(
                USAGE,
                "NO_MANIFEST",
                f"{source} holds a document without a `kind`.",
                "Is it a Kubernetes manifest?",
            )
    return found


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block, and no anchors or aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None if go_yaml.resolve(text) == ("str", text) else "'"
    if set(text) & {
        "\x85",
        "\u2028",
        "\u2029",
    }:  # line ends in YAML 1.1; escaped, they come back as they were
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump(files: Sequence[Sequence[Piece]], documents: Sequence[Document], kind: str) -> bytes:
    """The files one after the other as YAML, or their objects as JSON (one, or a List of several).
    As YAML, what did not change is written as it was; JSON becomes YAML.
    """
    if kind == "json":
        values = [one.after for one in documents]
        whole = (
            values[0] if len(values) == 1 else {"apiVersion": "v1", "kind": "List", "items": values}
        )
        return json.dumps(_as_go_writes(whole), indent=2, ensure_ascii=False).encode() + b"\n"
    if len(files) == 1 and not any(one.changed or one.piece.is_json for one in documents):
        return b"".join(piece.raw for piece in files[0])
    made = b""
    for number, file in enumerate(files):
        mine = {id(one.piece): one for one in documents if one.file == number}
        continues = False  # within a file, separators are its own
        for piece in file:
            raw = _written(piece, mine.get(id(piece)))
            if made and not continues and not raw.startswith(b"---"):
                made = _ended(made) + b"---\n"
            made = (_ended(made) if raw.startswith(b"---") else made) + raw
            continues = not piece.is_json
    return made


def _written(piece: Piece, document: Document | None) -> bytes:
    if document is None or (piece.text is not None and not document.changed):
        return (
            piece.raw
            if piece.raw[:2] not in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
            else (piece.text or "").encode()
        )
    text = document.texts()[1]
    if b"\r\n" in piece.raw and piece.text is not None:
        text = text.replace("\n", "\r\n")
    elif not piece.raw.endswith(b"\n") and piece.text is not None:
        text = text.removesuffix("\n")
    mark = codecs.BOM_UTF8 if piece.raw.startswith(codecs.BOM_UTF8) else b""
    return mark + text.encode()


def _ended(made: bytes) -> bytes:
    return made if made.endswith(b"\n") else made + b"\n"


def written(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)
    return text


def _as_go_writes(value: Any) -> Any:
    """The value with whole numbers written without a point, because kubectl does not read `1000.0`
    as an integer.
    """
    if isinstance(value, dict):
        return {key: _as_go_writes(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_as_go_writes(held) for held in value]
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e21
    return int(Decimal(repr(value))) if whole else value


def templates(document: Any, path: tuple[str | int, ...] = ()) -> Iterator[Place]:
    """Every pod in a document; for a List, those of all its items."""
    if not isinstance(document, Mapping):
        return
    kind = str(document.get("kind"))
    items = document.get("items")
    if kind.endswith("List") and isinstance(items, list):
        for index, item in enumerate(items):
            one = (
                item
                if not isinstance(item, Mapping) or "kind" in item
                else {"kind": kind.removesuffix("List"), **item}
            )
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
    """Whether the workload has the label that its pods should have."""
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
