"""An application that signs and verifies with whatever client is first on its path, and says each
call in a line of JSON. Runs until its standard input ends.

Usage: python older_application.py SOCKET
"""

from __future__ import annotations

import json
import select
import sys
import time
from typing import Any

import capsign

WISH = {"purpose": "jwt", "protocol": "jwt"}
PACE_S = 0.05
FRESH_S = 1.1
"""After so many seconds an agent asks for public keys anew when nothing verifies."""


def verify(signer: capsign.Signer, message: bytes, made: capsign.Signature) -> None:
    """An agent of that release says of a version in its first second that nothing verifies: it is
    asked once more.
    """
    try:
        signer.verify(message, made, **WISH)
    except capsign.InvalidSignature:
        time.sleep(FRESH_S)
        signer.verify(message, made, **WISH)


def main() -> None:
    count = 0
    with capsign.Signer(sys.argv[1], timeout=20) as signer:
        while not select.select([sys.stdin], [], [], PACE_S)[0]:
            count += 1
            message = f"older {count}".encode()
            try:
                made = signer.sign(message, algorithm="ES256", **WISH)
                verify(signer, message, made)
            except capsign.CapsignError as error:
                said: dict[str, Any] = {"error": str(error)}
            else:
                said = {
                    "message": message.decode(),
                    "version": made.key_version,
                    "leaf": made.leaf_index,
                    "signatures": [[each.kid, each.value.hex()] for each in made.signatures],
                }
            print(json.dumps(said | {"client": capsign.__file__}), flush=True)


if __name__ == "__main__":
    main()
