"""The algorithm table holds together: sizes, strengths and custody classes say what the algorithms
are.
"""

from __future__ import annotations

import pytest
from capsign_wire.algorithms import ALGORITHMS, BY_NAME, CUSTODY_NAMES
from capsign_wire.types.v1 import algorithms_pb2 as pb
from cryptography.hazmat.primitives.asymmetric import ec, utils

UPSTREAM_BYTES = {
    pb.UPSTREAM_MESSAGE: 65536,
    pb.UPSTREAM_SHA256: 32,
    pb.UPSTREAM_SHA384: 48,
    pb.UPSTREAM_MU: 64,
}


def test_every_algorithm_has_a_row():
    assert set(ALGORITHMS) == {value.number for value in pb.Algorithm.DESCRIPTOR.values} - {0}
    assert {"Ed25519", "ES256", "ES384", "PS256", "RS256", "HS256", "ML-DSA-65"} == set(BY_NAME)


@pytest.mark.parametrize("row", ALGORITHMS.values(), ids=lambda row: row.name)
def test_a_row_holds_together(row):
    assert row.max_input == UPSTREAM_BYTES[row.upstream]
    assert row.takes_digest == (row.upstream != pb.UPSTREAM_MESSAGE)
    assert row.strength_bits >= 128
    assert row.custody <= set(CUSTODY_NAMES)
    in_memory = pb.CUSTODY_CLASS_ADAPTER_MEMORY in row.custody
    assert in_memory == row.derivable
    assert row.max_signature <= 4096  # the bound of the field that carries it


@pytest.mark.parametrize(("name", "curve"), [("ES256", ec.SECP256R1()), ("ES384", ec.SECP384R1())])
def test_der_never_exceeds_its_bound(name, curve):
    order = {"ES256": 2**256, "ES384": 2**384}[
        name
    ] - 1  # above any r or s: the longest DER there is
    assert len(utils.encode_dss_signature(order, order)) <= BY_NAME[name].max_signature


def test_custody_classes_are_ordered_weakest_first():
    assert list(CUSTODY_NAMES) == sorted(CUSTODY_NAMES)
    assert list(CUSTODY_NAMES.values()) == ["adapter-memory", "hsm-derived", "hsm-direct"]
