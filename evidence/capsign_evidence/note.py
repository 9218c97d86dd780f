"""C2SP signed-note: text, an empty line, signature lines. Plain Ed25519 keys (signature type 0x01)
are here, those of cosignatures in `cosignature.py`.

The text must not be trusted until `open_note` has returned it. Signature lines of unknown keys are
ignored, so that cosignatures of witnesses and keys of a rotation can be added.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

ED25519 = 0x01
"""The signature type byte of a plain Ed25519 signature."""

PUBLIC_KEY_LEN = 32
SIGNATURE_LEN = 64
MAX_NOTE_LEN = 64 * 1024
"""Longest note that is read, bytes."""
MAX_SIGNATURES = 64
"""Most signature lines that are read; the specification demands 16."""

_DASH = "\u2014 "


class NoteError(ValueError):
    """A note, or a key in its text form, is malformed or not signed as it must be. Do not use its
    text.
    """


class NoteVerifier(Protocol):
    """A public key that signs notes, whatever its type."""

    @property
    def name(self) -> str:
        """The key's name."""

    @property
    def key_id(self) -> bytes:
        """4 bytes that tell keys of one name apart."""

    @property
    def public_key(self) -> bytes:
        """The public key alone, without name and type."""

    @property
    def covers_extensions(self) -> bool:
        """Whether its signature of a checkpoint is over the extension lines too."""

    def text(self) -> str:
        """The key as people pass it on (vkey)."""

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raise NoteError unless `signature`, what a line holds after the key id, is this key's
        for the note text.
        """


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """Name and Ed25519 public key (32 bytes) of a signer."""

    name: str
    public_key: bytes

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public_key) != PUBLIC_KEY_LEN:
            raise NoteError(f"an Ed25519 public key has {PUBLIC_KEY_LEN} bytes")

    @property
    def key_id(self) -> bytes:
        """First 4 bytes of SHA-256(name, newline, type, public key): tells keys apart, proves
        nothing.
        """
        return key_id_of(self.name, ED25519, self.public_key)

    @property
    def covers_extensions(self) -> bool:
        """It signs the whole text."""
        return True

    def text(self) -> str:
        """The key as people pass it on: name+key id in hexadecimal+base64 of type and key."""
        return vkey(self.name, ED25519, self.public_key)

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """The key of a text form. Raises NoteError, also when the key id does not belong to name
        and key.
        """
        name, kind, public_key = parse_vkey(text)
        if kind != ED25519:
            raise NoteError("the verifier key is not of type Ed25519")
        return cls(name, public_key)

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raise NoteError unless this key signed the text."""
        # Loaded with the first signature: an agent's start should not wait for it.
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text)
        except (InvalidSignature, ValueError):
            raise NoteError(f"the signature by {self.name} does not verify") from None


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature line, not yet verified."""

    name: str
    key_id: bytes
    signature: bytes

    def text(self) -> str:
        """The line with its newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note taken apart. `text` ends with a newline."""

    text: str
    lines: tuple[SignatureLine, ...]

    def encode(self) -> bytes:
        """The note as it is stored and sent."""
        return (self.text + "\n" + "".join(line.text() for line in self.lines)).encode()


def key_id_of(name: str, kind: int, public_key: bytes) -> bytes:
    """The key id of signature type `kind`, as signed-note recommends: 4 bytes."""
    return hashlib.sha256(name.encode() + b"\n" + bytes((kind,)) + public_key).digest()[:4]


def vkey(name: str, kind: int, public_key: bytes) -> str:
    """The text form of a verifier key: name+key id in hexadecimal+base64 of type and key."""
    key = base64.b64encode(bytes((kind,)) + public_key).decode()
    return f"{name}+{key_id_of(name, kind, public_key).hex()}+{key}"


def parse_vkey(text: str) -> tuple[str, int, bytes]:
    """Name, signature type and public key of a verifier key. Raises NoteError, also when the key id
    does not belong to the rest. Whether the key has the length of its type is not looked at.
    """
    # Standard base64 may hold '+' too, so only the first two separate.
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise NoteError("a verifier key is name+id+key")
    name, key_id, encoded = parts
    data = decode_base64(encoded)
    if not data:
        raise NoteError("a verifier key begins with its type")
    check_name(name)
    if key_id_of(name, data[0], data[1:]).hex() != key_id:
        raise NoteError("the id of the verifier key does not belong to its name and key")
    return name, data[0], data[1:]


def sign_note(text: str, key: VerifierKey, sign: Callable[[bytes], bytes]) -> bytes:
    """A note with one signature. `sign` makes the raw Ed25519 signature (64 bytes) of the private
    half of `key`.

    The signature is verified before the note is returned, so that a token that signs wrongly, or
    with another key, cannot publish it.
    """
    data = _check_text(text).encode()
    signature = sign(data)
    key.verify(data, signature)
    return Note(text, (SignatureLine(key.name, key.key_id, signature),)).encode()


def add_lines(data: bytes, lines: Iterable[SignatureLine]) -> bytes:
    """The note with these signature lines added, each in the place of an earlier one of its key.
    Nothing is verified. Raises NoteError if the note is malformed or becomes too long.
    """
    note = parse_note(data)
    merged = {(line.name, line.key_id): line for line in (*note.lines, *lines)}
    longer = Note(note.text, tuple(merged.values())).encode()
    parse_note(longer)
    return longer


def parse_note(data: bytes) -> Note:
    """The parts of a note, nothing verified. Raises NoteError unless the bytes are exactly what the
    format allows.
    """
    if len(data) > MAX_NOTE_LEN:
        raise NoteError(f"a note has at most {MAX_NOTE_LEN} bytes")
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise NoteError("a note is UTF-8") from None
    text, separator, signatures = whole.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise NoteError(
            "a note is text, an empty line and signature lines, each ended by a newline"
        )
    lines = signatures[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError(f"a note has at most {MAX_SIGNATURES} signatures")
    return Note(_check_text(text + "\n"), tuple(_signature_line(line) for line in lines))


def open_note(data: bytes, keys: Iterable[NoteVerifier]) -> Note:
    """The parts of a note that at least one of these keys signed. Raises NoteError.

    A wrong signature by a known key makes the whole note invalid, whatever other signatures it
    has.
    """
    note = parse_note(data)
    known = {(key.name, key.key_id): key for key in keys}
    verified = False
    for line in note.lines:
        key = known.get((line.name, line.key_id))
        if key is not None:
            key.verify(note.text.encode(), line.signature)
            verified = True
    if not verified:
        raise NoteError("no known key signed the note")
    return note


def decode_base64(text: str) -> bytes:
    """Standard base64 with padding, RFC 4648 section 4, in its one canonical spelling. Raises
    NoteError.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("this is not base64") from None
    if base64.b64encode(data).decode() != text:
        raise NoteError("this is not canonical base64")
    return data


def _signature_line(line: str) -> SignatureLine:
    name, separator, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not separator:
        raise NoteError("a signature line is a dash, a name and base64, with a space between")
    check_name(name)
    data = decode_base64(encoded)
    if len(data) < 5:
        raise NoteError("a signature line holds a key id of 4 bytes and a signature")
    return SignatureLine(name, data[:4], data[4:])


def check_name(name: str) -> None:
    """Raise NoteError unless this can be the name of a key."""
    if not name or "+" in name or any(letter.isspace() or ord(letter) < 0x20 for letter in name):
        raise NoteError("a key name is not empty and has no space, plus or control character")


def _check_text(text: str) -> str:
    if not text.endswith("\n") or any(ord(letter) < 0x20 and letter != "\n" for letter in text):
        raise NoteError("the text of a note ends with a newline and has no other control character")
    return text
