"""What a key version has in the token, how that is destroyed, and how it is shown to be gone."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from capsign_wire.types.v1 import algorithms_pb2 as algorithms

from capsign_adapter.algorithms.table import TABLE
from capsign_adapter.keys import labels
from capsign_adapter.keys.check_values import CHECK_DOMAIN
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.token.interface import KeyExistsError, KeyMissingError, Token


def objects_of(label: str) -> tuple[str, ...]:
    """Labels of all that a version with this label may have in the token: what signs, then what
    attests.
    """
    return label, labels.attestation(label)


def destroy(token: Token, label: str, held: Sequence[str]) -> list[str]:
    """Destroy the objects of the version with this label that are among the labels `held`; which.

    One that another replica destroyed in this moment counts as destroyed. Raises TokenError: some
    may be left, and it can be called again.
    """
    there = [one for one in objects_of(label) if one in held]
    for one in there:
        with contextlib.suppress(KeyMissingError):
            token.destroy(one)
    return there


def keep_number(token: Token, row: KeyVersionRow, held: list[str]) -> None:
    """Leave the number of a version that is gone in the token, unless a later one is among the
    labels `held`, which gets it: a store that goes back to a copy of before it then gives the
    number, and with it the activation epoch and the kid of HS256, to no other. Raises TokenError,
    and it can be called again.
    """
    if labels.highest_version(row.tenant, row.key, held) < row.version:
        label = labels.spent(row.label)
        with contextlib.suppress(KeyExistsError):  # another replica was first
            token.generate_secret(label)
        held.append(label)


def still_answers(token: Token, row: KeyVersionRow) -> list[str]:
    """Labels of objects of this version that the token still uses when it is asked to; empty for
    one that is gone. What is computed is thrown away. Raises TokenError.

    A label that is not listed any more proves less: a session may still hold what it found before.
    """
    return [label for label in objects_of(row.label) if _answers(token, row, label)]


def _answers(token: Token, row: KeyVersionRow, label: str) -> bool:
    try:
        if row.derived and label == row.label:
            token.hmac(label, CHECK_DOMAIN)
        else:
            number = row.algorithms[0] if label == row.label else algorithms.ALGORITHM_ES256
            algorithm = algorithms.Algorithm.ValueType(number)
            token.sign(label, algorithm, _harmless(algorithm))
    except KeyMissingError:
        return False
    return True


def _harmless(algorithm: algorithms.Algorithm.ValueType) -> bytes:
    """Input for a signature that nobody keeps: zeros, as long as the algorithm takes."""
    row = TABLE[algorithm].in_token
    return bytes((row.input_len if row is not None else 0) or 1)
