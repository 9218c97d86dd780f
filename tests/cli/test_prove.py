"""`capsign audit prove`: found, not found, and not known are three answers."""

from __future__ import annotations

from unittest import mock

import pytest
from capsign_cli.audit.commitments import Told
from capsign_cli.audit.prove import looked_for
from support.evidence_at_rest import MemoryArchive, commitment, signed


def told(commitment: bytes = b"\x42" * 32, incomplete: tuple[str, ...] = ()) -> Told:
    way = mock.Mock(protocol="jwt", role="issuer", protocol_version="1")
    return Told({commitment: way}, incomplete, 0)


@pytest.mark.parametrize(
    ("incomplete", "first", "entry", "code"),
    [
        ((), 0, signed(1), 1),
        (("orders-jwt",), 0, signed(1), 3),
        ((), 5, signed(1), 3),
        ((), 0, signed(1)[:30], 3),
    ],
    ids=["all was looked for", "a way was not", "leaves were moved away", "one cannot be read"],
)
def test_not_found_and_not_known(incomplete, first, entry, code):
    """A responder who took "not known" for "no" would tell that a message was never signed."""
    archive = MemoryArchive([entry] * 6)
    archive.first = first
    answer = looked_for(archive, told(incomplete=incomplete))
    assert (answer.exit_code, answer.entries) == (code, [])


def test_what_is_found_is_found_whatever_else_was_not_looked_for():
    archive = MemoryArchive([signed(1)])
    assert looked_for(archive, told(commitment(1), ("orders-jwt",))).exit_code == 0


def test_a_summary_that_somebody_emptied_hides_nothing():
    archive = MemoryArchive([signed(number) for number in range(256)])
    archive.held_summaries[0] = b"\x01\0" + bytes(8) + b"\xff" * 8 + bytes(8)
    assert looked_for(archive, told(commitment(7))).exit_code == 0
    assert looked_for(archive, told(commitment(7)), summaries=True).exit_code == 1
