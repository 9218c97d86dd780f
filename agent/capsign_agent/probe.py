"""A health probe for an exec check: `python -I -S probe.py PATH`. Standard library only, so that it starts in milliseconds.

Connects to the agent's probe socket and reads one line. Exit status 0: SERVING; 1: anything else; 2: wrong use.
"""

import socket
import sys

TIMEOUT_S = 2.0


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: probe.py PATH\n")
        return 2
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(TIMEOUT_S)
    try:
        client.connect(arguments[0])
        line = client.recv(256).decode("ascii", "replace").strip()
    except OSError as error:
        line = f"UNREACHABLE {error}"
    finally:
        client.close()
    sys.stdout.write(f"{line}\n")
    return 0 if line == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
