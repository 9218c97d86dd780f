"""Reads the items of answers."""

from __future__ import annotations

from capsign_wire.types.v1 import signing_pb2


def only(item: signing_pb2.SignedItem) -> bytes:
    """The one signature of an item; empty if it failed."""
    assert len(item.signatures) <= 1
    return item.signatures[0].value if item.signatures else b""


def only_of(group: signing_pb2.SignedGroup) -> bytes:
    """The one signature of a group of one item."""
    (item,) = group.items
    return only(item)
