"""Labels of the adapter's objects in the token, by which it finds its keys."""

from __future__ import annotations

from collections.abc import Iterable

ROOT = "capsign"

LOG = f"{ROOT}/log"
"""The Ed25519 key pair that signs checkpoints."""

LOG_ROOT = f"{ROOT}/log-root"
"""The secret from which the log's ML-DSA-44 key is derived."""

MINT = f"{ROOT}/mint"
"""The secret from which the key of the handle mint is derived."""


def _part(name: str) -> str:
    # A slash would let tenant "a/b" with key "c" name the object of tenant "a" with key "b/c".
    # Policy names cannot hold one; the check is here because a label is where it would do harm.
    if not name or "/" in name:
        raise ValueError("tenant and key names in a label are not empty and hold no slash")
    return name


def key_version(tenant: str, key: str, version: int) -> str:
    """Label of a derivation root, or of a direct key pair; versions count from 1."""
    if version < 1:
        raise ValueError("key versions count from 1")
    return f"{ROOT}/{_part(tenant)}/{_part(key)}/{version}"


def attestation(version_label: str) -> str:
    """Label of the P-256 key pair that attests subkeys of the version with this label."""
    return f"{version_label}/attest"


def spent(version_label: str) -> str:
    """Label of the secret that keeps the number of a destroyed version from being given again. It
    is used for nothing.
    """
    return f"{version_label}/spent"


def pepper(tenant: str) -> str:
    """Label of the secret from which this tenant's commitment key comes."""
    return f"{ROOT}/{_part(tenant)}/pepper"


def authority(version: int) -> str:
    """Label of the P-256 key pair of a certificate authority; versions count from 1."""
    if version < 1:
        raise ValueError("authority versions count from 1")
    return f"{ROOT}/authority/{version}"


def highest_authority(labels: Iterable[str]) -> int:
    """Returns the highest version of an authority with a key pair in the token, 0 if there is none;
    as `highest_version`.

    The labels of a tenant named "authority" have the same prefix, but continue with a name that is
    not a number, or have more parts.
    """
    prefix = f"{ROOT}/authority/"
    rest = (label.removeprefix(prefix) for label in labels if label.startswith(prefix))
    return max((int(number) for number in rest if number.isdecimal()), default=0)


def highest_version(tenant: str, key: str, labels: Iterable[str]) -> int:
    """Returns the highest version of a key with an object in the token, 0 if there is none.

    A new version is above this and above what the store knows: an interrupted creation may have
    left an object without a row, a store may have gone back, and a number is never used twice.
    """
    prefix = f"{ROOT}/{_part(tenant)}/{_part(key)}/"
    numbers = (
        label.removeprefix(prefix).split("/")[0] for label in labels if label.startswith(prefix)
    )
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def has_versions_of(tenant: str, labels: Iterable[str]) -> bool:
    """Whether the token holds, or held, a version of any key of this tenant."""
    parts = (label.split("/") for label in labels)
    return any(len(one) >= 4 and one[:2] == [ROOT, tenant] for one in parts)
