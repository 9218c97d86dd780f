"""Builds `go_load/`: an application in Go that knows nothing of us but proto/.

Its stubs are made by Go's own plugins of protoc; what protoc itself would pass them is in our
generated modules already, so protoc is not needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor import FileDescriptor

SOURCE = Path(__file__).parent / "go_load"
MADE = Path(__file__).parents[1] / "build" / "go_load"
MODULE = "capsign.test/go_load"
PLUGINS = ("protoc-gen-go", "protoc-gen-go-grpc")
ROOT_PROTO = "capsign_wire.agent.v1.agent_pb2"


class GoMissingError(Exception):
    """Go, or what the client needs of it, is not here. The text says which."""


def build() -> Path:
    """The program, built if it is not there yet. Raises GoMissingError."""
    if shutil.which("go") is None:
        raise GoMissingError("go is not installed: cells of a Go client are left out")
    shutil.rmtree(MADE, ignore_errors=True)
    shutil.copytree(SOURCE, MADE)
    _go("mod", "download")
    request = _request()
    for plugin in PLUGINS:
        _write(plugin_pb2.CodeGeneratorResponse.FromString(_go("tool", plugin, stdin=request)))
    binary = MADE / "go_load"
    _go("build", "-mod=readonly", "-o", str(binary), ".")
    return binary


def _request() -> bytes:
    files: dict[str, FileDescriptor] = {}
    _collect(import_module(ROOT_PROTO).DESCRIPTOR, files)
    ours = [name for name in files if name.startswith("capsign/")]
    packages = (f"M{name}={MODULE}/{name.rpartition('/')[0]}" for name in ours)
    request = plugin_pb2.CodeGeneratorRequest(
        file_to_generate=ours, parameter=",".join([f"module={MODULE}", *packages])
    )
    for file in files.values():
        file.CopyToProto(request.proto_file.add())
    return request.SerializeToString()


def _collect(file: FileDescriptor, into: dict[str, FileDescriptor]) -> None:
    """The file after everything that it imports."""
    for imported in file.dependencies:
        _collect(imported, into)
    into.setdefault(file.name, file)


def _write(response: plugin_pb2.CodeGeneratorResponse) -> None:
    if response.error:
        raise GoMissingError(f"no stubs for Go: {response.error}")
    for file in response.file:
        path = MADE / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.content)


def _go(*arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(
        ["go", *arguments],
        cwd=MADE,
        input=stdin,
        capture_output=True,
        env={**os.environ, "GOFLAGS": "-mod=mod" if arguments[0] == "mod" else ""},
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[:300]
        raise GoMissingError(f"`go {arguments[0]}` failed: {said}")
    return done.stdout
