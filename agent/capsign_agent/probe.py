"""A health probe for an exec check: `python -I -S probe.py [--live] PATH`. It uses the standard
library only, and so starts in milliseconds.

Connects to the agent's probe socket and reads one line. Exit status 0: SERVING; 1: anything else;
2: wrong use.

With `--live` any answer gives exit status 0: it shows that the event loop runs. An agent that
cannot serve because no adapter is reachable must not be restarted for it: it would lose the handles
it holds and gain nothing.
"""

import socket
import sys

TIMEOUT_S = 2.0
MAX_LINE = 1024


def main(arguments: list[str]) -> int:
    live = arguments[:1] == ["--live"]
    paths = arguments[live:]
    if len(paths) != 1 or paths[0].startswith("--"):
        sys.stderr.write("usage: probe.py [--live] PATH\n")
        return 2
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(TIMEOUT_S)
    answered = False
    try:
        client.connect(paths[0])
        line = client.recv(MAX_LINE).decode("ascii", "replace").strip()
        answered = bool(line)
    except OSError as error:
        line = f"UNREACHABLE {error}"
    finally:
        client.close()
    sys.stdout.write(f"{line}\n")
    return 0 if line == "SERVING" or (live and answered) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
