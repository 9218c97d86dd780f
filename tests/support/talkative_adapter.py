"""The adapter, except that it lets out what it is given to sign: what the leak test must see. Each
way is one that a well-meant change could open: a debug line, an attribute of a span, an error that
quotes, a commitment without a key, an entry with a digest for a serial.

Everything else is the real program.
"""

from __future__ import annotations

import hashlib
from typing import Any

from capsign_adapter import __main__
from capsign_adapter.front.batch_telemetry import BatchTelemetry
from capsign_adapter.keys.commitment import GroupFingerprint
from capsign_adapter.sign import release
from capsign_wire import logs


def install() -> None:
    """Open the ways."""
    note, answer = BatchTelemetry.note, release.answer

    def telling(span: Any, request: Any, response: Any) -> None:
        note(span, request, response)
        span.note("capsign.debug", request.groups[0].items[0].input.hex())

    def quoting(batch: Any) -> Any:
        answered = answer(batch)
        for asked, group in zip(batch.request.groups, answered.groups, strict=True):
            for item, told in zip(asked.items, group.items, strict=True):
                logs.warning("debug.input", data=item.input)
                if told.HasField("failure"):
                    told.failure.message = f"Cannot sign {item.input!r}."
        return answered

    BatchTelemetry.note = staticmethod(telling)
    release.answer = quoting
    GroupFingerprint.of = lambda _, data: hashlib.sha256(data).digest()
    GroupFingerprint.of_each = lambda self, inputs: [self.of(data) for data in inputs]


if __name__ == "__main__":
    install()
    __main__.main()
