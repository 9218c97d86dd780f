"""Key versions as people are shown them."""

from __future__ import annotations

from capsign_wire.adapter.v1 import admin_pb2 as pb
from capsign_wire.types.v1 import algorithms_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from capsign_adapter.keys.keyring import Keyring
from capsign_adapter.model.key_versions import KeyVersionRow


def version_of(row: KeyVersionRow, keyring: Keyring) -> pb.KeyVersion:
    """One version. Raises FailureError TOKEN_UNAVAILABLE."""
    numbers = [algorithms_pb2.Algorithm.ValueType(number) for number in row.algorithms]
    return pb.KeyVersion(
        version=row.version,
        state=row.state,
        created_at=time_of(row.created_ms),
        custody=keyring.custody(row, numbers[0]),
        algorithms=numbers,
        check_value=row.check_value,
        published_at=time_of(row.published_ms),
        activated_at=time_of(row.activated_ms),
        since=time_of(row.since_ms),
        activation_epoch=row.activation_epoch,
        gone_at=time_of(row.gone_ms),
    )


def time_of(ms: int) -> Timestamp | None:
    """Milliseconds since 1970 as a message; 0 is none."""
    if not ms:
        return None
    made = Timestamp()
    made.FromMilliseconds(ms)
    return made
