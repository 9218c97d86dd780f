"""Burns a share of one CPU, given as its argument, until its standard input is closed."""

from __future__ import annotations

import sys
import threading
import time

PERIOD_S = 0.005


def main() -> None:
    share, over = float(sys.argv[1]), threading.Event()
    threading.Thread(target=_end_with_input, args=(over,), daemon=True).start()
    while not over.is_set():
        until = time.process_time() + PERIOD_S * share
        while time.process_time() < until:
            sum(range(200))
        if share < 1.0:
            over.wait(PERIOD_S * (1.0 - share))


def _end_with_input(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    main()
