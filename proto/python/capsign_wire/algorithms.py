"""The algorithm table, read from the options of `capsign.types.v1.Algorithm`.

A new algorithm is one new enum value with its row, and its test vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from capsign_wire.types.v1 import algorithms_pb2 as pb


@dataclass(frozen=True, slots=True)
class AlgorithmRow:
    """One algorithm. Lengths are bytes."""

    number: pb.Algorithm.ValueType
    name: str
    jose: str
    upstream: pb.Upstream.ValueType
    max_input: int
    strength_bits: int
    custody: frozenset[int]
    okm_len: int
    max_signature: int

    @property
    def derivable(self) -> bool:
        """Whether a subkey can be derived for it; otherwise it signs in the token itself."""
        return self.okm_len > 0

    @property
    def takes_digest(self) -> bool:
        """Whether what goes upstream is a digest (or mu), so that the message stays in the pod."""
        return self.upstream != pb.UPSTREAM_MESSAGE


def _read() -> Mapping[int, AlgorithmRow]:
    table: dict[int, AlgorithmRow] = {}
    for value in pb.Algorithm.DESCRIPTOR.values:
        row = value.GetOptions().Extensions[pb.row]
        if row.name:
            table[value.number] = AlgorithmRow(
                number=pb.Algorithm.ValueType(value.number),
                name=row.name,
                jose=row.jose,
                upstream=row.upstream,
                max_input=row.max_input,
                strength_bits=row.strength_bits,
                custody=frozenset(row.custody),
                okm_len=row.okm_len,
                max_signature=row.max_signature,
            )
    return MappingProxyType(table)


ALGORITHMS: Mapping[int, AlgorithmRow] = _read()
"""Rows by enum number."""

OPEN = "open"
"""What metrics call the algorithm of a call that leaves it open."""


def metric_name(number: int) -> str:
    """The name of an algorithm as the label of a metric."""
    row = ALGORITHMS.get(number)
    return OPEN if row is None else row.name


BY_NAME: Mapping[str, AlgorithmRow] = MappingProxyType(
    {row.name: row for row in ALGORITHMS.values()}
)
"""Rows by the name that policies, contexts and commands use."""

CUSTODY_NAMES: Mapping[int, str] = MappingProxyType(
    {
        pb.CUSTODY_CLASS_ADAPTER_MEMORY: "adapter-memory",
        pb.CUSTODY_CLASS_HSM_DERIVED: "hsm-derived",
        pb.CUSTODY_CLASS_HSM_DIRECT: "hsm-direct",
    }
)
"""Custody classes as people write them, weakest first."""
