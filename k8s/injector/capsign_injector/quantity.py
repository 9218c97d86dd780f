"""Kubernetes quantities (`10m`, `64Mi`, `1.5Gi`, `1e3`) as exact numbers, and their canonical text.
Pure.

Source: k8s.io/apimachinery/pkg/api/resource, the grammar in the comment of Quantity. The API server
does not rewrite canonical text, so a pod that is sent again shows no difference.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import ceil

MAX_LENGTH = 32
"""Most characters of a quantity."""

_SCALE = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
}
_FORM = re.compile(
    r"(?P<number>\d{1,15}(\.\d{0,9})?|\.\d{1,9})((?P<unit>[numkMGT]|[KMGT]i)|[eE](?P<exponent>[+-]?\d{1,2}))?"
)


class NotAQuantityError(ValueError):
    """The text is no quantity, or not one for a container: negative, or above the tera range."""


def parse(text: str) -> Fraction:
    """The value in cores or bytes. Raises NotAQuantityError."""
    found = _FORM.fullmatch(text) if len(text) <= MAX_LENGTH and text.isascii() else None
    if found is None:
        raise NotAQuantityError("not a quantity")
    number = Fraction(found["number"].removesuffix("."))
    return number * _SCALE[found["unit"] or ""] * Fraction(10) ** int(found["exponent"] or 0)


def cpu(cores: Fraction) -> str:
    """Canonical text; fractions of a millicore, which Kubernetes does not have, are rounded up."""
    millis = ceil(cores * 1000)
    return f"{millis}m" if millis % 1000 else str(millis // 1000)


def memory(size: Fraction | int) -> str:
    """Canonical text; fractions of a byte are rounded up."""
    count, steps = ceil(size), 0
    for base, units in ((1024, ("", "Ki", "Mi", "Gi", "Ti")), (1000, ("", "k", "M", "G", "T"))):
        while steps < len(units) - 1 and count and count % base == 0:
            count, steps = count // base, steps + 1
        if steps:
            return f"{count}{units[steps]}"
    return str(count)
