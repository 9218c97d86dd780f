"""The Secret's data: serving certificate and authorities as named PEM entries. Pure.

| entry | |
|---|---|
| `format` | `1` |
| `tls.crt`, `tls.key` | what is served |
| `ca.crt`, `ca.key` | the authority that signed it |
| `next-ca.crt`, `next-ca.key`, `next-ca.published-at` | the next authority; since when published |
| `previous-ca.crt`, `previous-ca.until` | the authority before; trusted until |
| `rotation` | the last rotation asked for that was taken up |

Data that is not understood is never overwritten: it may be a newer version's, or somebody's mistake
to be looked at.
"""

from __future__ import annotations

from collections.abc import Mapping

from capsign_injector.certificate import certificates
from capsign_injector.certificate.certificates import CertificateError, Pair
from capsign_injector.certificate.rotation import Material

FORMAT = b"1"
_KNOWN = {
    "format",
    "tls.crt",
    "tls.key",
    "ca.crt",
    "ca.key",
    "next-ca.crt",
    "next-ca.key",
    "next-ca.published-at",
    "previous-ca.crt",
    "previous-ca.until",
    "rotation",
}


class StoredError(Exception):
    """The Secret holds data that cannot be used. The text says what, and how to go on; it quotes no
    value.
    """


def encode(material: Material) -> dict[str, bytes]:
    """The Secret's whole data."""
    data = {
        "format": FORMAT,
        "tls.crt": material.leaf.certificate,
        "tls.key": material.leaf.key,
        "ca.crt": material.authority.certificate,
        "ca.key": material.authority.key,
        "rotation": material.rotation.encode(),
    }
    if material.next is not None:
        data |= {"next-ca.crt": material.next.certificate, "next-ca.key": material.next.key}
        if material.next_published_at is not None:
            data["next-ca.published-at"] = b"%d" % material.next_published_at
    if material.previous is not None:
        data |= {
            "previous-ca.crt": material.previous,
            "previous-ca.until": b"%d" % material.previous_until,
        }
    return data


def decode(data: Mapping[str, bytes]) -> Material | None:
    """The content of the Secret's data; None if it is empty. Raises StoredError."""
    if not any(data.values()):
        return None
    if data.get("format") != FORMAT:
        raise StoredError(
            f"its format is not {FORMAT.decode()}. It was written by another version or by hand; "
            "install that version again, or empty the Secret's data and a new authority is made"
        )
    strangers = sorted(set(data) - _KNOWN)
    if strangers:
        raise StoredError(f"the entry {strangers[0][:64]!r} is not known. Remove it")
    try:
        return _material(data)
    except CertificateError as error:
        raise StoredError(
            f"what it holds cannot be used: {error} Empty its data, and a new authority is made"
        ) from None


def _material(data: Mapping[str, bytes]) -> Material:
    authority, leaf = _pair(data, "ca"), _pair(data, "tls")
    certificates.refuse_strangers(authority.certificate, leaf)
    upcoming = _pair(data, "next-ca") if "next-ca.crt" in data else None
    previous = data.get("previous-ca.crt")
    for certificate in (
        authority.certificate,
        *((upcoming.certificate,) if upcoming else ()),
        *((previous,) if previous else ()),
    ):
        if not certificates.read(certificate).authority:
            raise CertificateError("An authority's certificate is not an authority's.")
    if upcoming is not None and previous is not None:
        raise CertificateError("There is both a next authority and a previous one.")
    published_at = _time(data, "next-ca.published-at") if "next-ca.published-at" in data else None
    try:
        rotation = data.get("rotation", b"").decode()
    except UnicodeDecodeError:
        raise CertificateError("The entry 'rotation' is not UTF-8.") from None
    return Material(
        authority=authority,
        leaf=leaf,
        next=upcoming,
        next_published_at=published_at if upcoming else None,
        previous=previous,
        previous_until=_time(data, "previous-ca.until") if previous else 0,
        rotation=rotation,
    )


def _pair(data: Mapping[str, bytes], name: str) -> Pair:
    try:
        pair = Pair(data[f"{name}.crt"], data[f"{name}.key"])
    except KeyError as missing:
        raise CertificateError(f"The entry {missing} is missing.") from None
    certificates.refuse_split(pair)
    return pair


def _time(data: Mapping[str, bytes], name: str) -> int:
    text = data.get(name, b"")
    if not (text.isdigit() and len(text) <= 12):
        raise CertificateError(f"The entry {name!r} is not a time in seconds.")
    return int(text)
