"""Looks for marks in bytes, in every form in which something that was let out can stand there."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

PIECE = 14
"""Bytes that are compared: a part of a mark is a find too."""

CHUNK = 1 << 19

HASHES = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2b", "blake2s")


def forms(value: bytes) -> Iterator[tuple[str, bytes]]:
    """The value and its digests, as bytes and as text, each under a name."""
    digests = {name: hashlib.new(name, value).digest() for name in HASHES}
    digests["sha256 of sha256"] = hashlib.sha256(digests["sha256"]).digest()
    for name, data in {"itself": value, **digests}.items():
        yield name, data
        yield f"{name}, hexadecimal", data.hex().encode()
        yield f"{name}, HEXADECIMAL", data.hex().upper().encode()
        for shift in range(3):
            text = base64.b64encode(bytes(shift) + data)[-(-shift * 4 // 3) :].rstrip(b"=")
            # its first and last characters depend on what stands beside it
            yield f"{name}, base64", text[1:-1]
            yield (
                f"{name}, base64url",
                base64.urlsafe_b64encode(bytes(shift) + data)[-(-shift * 4 // 3) :].rstrip(b"=")[
                    1:-1
                ],
            )
    yield "in JSON", json.dumps(value.decode("latin-1"))[1:-1].encode()
    yield "as Python writes it", repr(value)[2:-1].encode()
    yield "in octal", "".join(f"\\{byte:03o}" for byte in value).encode()


class Search:
    """Marks by name, and all their forms."""

    def __init__(self, marks: Mapping[str, bytes]) -> None:
        self._names: dict[bytes, str] = {}
        for name, value in marks.items():
            if len(value) < PIECE:
                continue
            for form, data in forms(value):
                if len(data) >= PIECE:
                    self._names.setdefault(data[:PIECE], f"{name}: {form}")

    def within(self, data: bytes) -> set[str]:
        """Names of what is there."""
        found: set[str] = set()
        for start in range(0, len(data), CHUNK):
            part = data[start : start + CHUNK + PIECE - 1]
            if part.count(0) == len(part):
                continue
            windows = {part[at : at + PIECE] for at in range(len(part) - PIECE + 1)}
            found |= {self._names[one] for one in windows & self._names.keys()}
        return found

    def within_files(self, paths: Iterable[Path]) -> set[str]:
        """The same of whole files."""
        return {one for path in paths if path.is_file() for one in self.within(path.read_bytes())}
