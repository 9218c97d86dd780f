"""Generate `capsign_wire` from the `.proto` files; `--check` says whether the committed code is
what they give.

The protos live in package `capsign.*`, the Python code in `capsign_wire.*` (applications import
`capsign`), so the imports that protoc writes are moved. Interfaces that others own (`spiffe`) keep
their folder inside `capsign_wire`. Everything generated is committed: nobody needs protoc to
install capsign.
"""

from __future__ import annotations

import filecmp
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
TARGET = ROOT / "python" / "capsign_wire"
FOREIGN = "spiffe"
"""Folder of the interfaces that others own."""

IMPORT = re.compile(r"\bcapsign\.(types|agent|adapter)\.v1\b(?!\.\w+Service)")


def moved(line: str) -> str:
    """A line of generated code with its Python imports pointing into capsign_wire."""
    if re.match(r"\s*(from|import) capsign\.", line):
        return IMPORT.sub(r"capsign_wire.\1.v1", line)
    return re.sub(rf"^(\s*(?:from|import)) {FOREIGN}\.", rf"\1 capsign_wire.{FOREIGN}.", line)


def generate(target: Path) -> None:
    sources = sorted(
        str(path.relative_to(ROOT))
        for folder in ("capsign", FOREIGN)
        for path in (ROOT / folder).rglob("*.proto")
    )
    well_known = str(files("grpc_tools") / "_proto")
    with tempfile.TemporaryDirectory() as scratch:
        arguments = ["protoc", f"-I{ROOT}", f"-I{well_known}"]
        arguments += [
            f"--{kind}_out={scratch}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")
        ]
        arguments += ["--mypy_opt=quiet", "--mypy_grpc_opt=quiet"]
        if protoc.main(arguments + sources) != 0:
            raise SystemExit("protoc failed; its message is above")
        for made in sorted(Path(scratch).rglob("*.py*")):
            relative = made.relative_to(scratch)
            if relative.parts[0] == "capsign":
                relative = relative.relative_to("capsign")
            if made.name.endswith(("_grpc.py", "_grpc.pyi")) and "Service" not in made.read_text():
                continue  # a file without services has an empty gRPC half
            text = made.read_text()
            if made.suffix == ".pyi":
                text = re.sub(
                    r"\bcapsign\.(types|agent|adapter)\.v1\.(\w+_pb2)",
                    r"capsign_wire.\1.v1.\2",
                    text,
                )
            destination = target / relative
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.write_text("".join(moved(line) for line in text.splitlines(keepends=True)))


def check() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = {path.relative_to(scratch) for path in Path(scratch).rglob("*_pb2*")}
        committed = {
            path.relative_to(TARGET)
            for path in TARGET.rglob("*_pb2*")
            if path.suffix in {".py", ".pyi"}
        }
        stale = sorted(
            str(name)
            for name in fresh | committed
            if name not in fresh
            or name not in committed
            or not filecmp.cmp(Path(scratch) / name, TARGET / name, shallow=False)
        )
    if stale:
        raise SystemExit(
            "generated code is not what the protos give; run `make proto`:\n  " + "\n  ".join(stale)
        )


if __name__ == "__main__":
    check() if sys.argv[1:] == ["--check"] else generate(TARGET)
