"""One attack, measured: the victim alone, beside the attack, and beside a process that burns what
the attack cost.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil

from bench.fairness.attacks import Attack
from bench.fairness.house import House


@dataclass(frozen=True)
class Fairness:
    """What the victim got done a second: alone, beside the attack and beside the burner; `cpus` is
    what both of these burnt.
    """

    attack: str
    alone: float
    attacked: float
    burnt: float
    cpus: float
    ratio: float

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        rates = {
            "alone": round(self.alone, 1),
            "attacked": round(self.attacked, 1),
            "burnt": round(self.burnt, 1),
        }
        return {
            "attack": self.attack,
            **rates,
            "cpus": round(self.cpus, 2),
            "ratio": round(self.ratio, 2),
        }

    def line(self) -> str:
        """For people."""
        rates = (
            f"alone {self.alone:8,.0f}/s, attacked {self.attacked:8,.0f}/s, burnt "
            f"{self.burnt:8,.0f}/s"
        )
        return f"{self.attack:16} {self.ratio:5.2f}   ({rates}, {self.cpus:.2f} CPUs)"


def measure(attack: Attack, house: House, seconds: float, rounds: int) -> Fairness:
    """The round with the median ratio."""
    found = sorted(
        (_round(attack, house, seconds) for _ in range(rounds)), key=lambda one: one.ratio
    )
    ratio = median(one.ratio for one in found)
    return min(found, key=lambda one: abs(one.ratio - ratio))


def _round(attack: Attack, house: House, seconds: float) -> Fairness:
    server = house.process(attack.server)
    began = _cpu(server)
    alone = _victim(attack, house, seconds)
    a_piece = (_cpu(server) - began) / max(alone["done"], 1)
    with _attacker(attack, house) as attacker:
        began, started = _cpu(server) + _cpu(attacker), time.perf_counter()
        attacked = _victim(attack, house, seconds)
        took = time.perf_counter() - started
        cost = _cpu(server) + _cpu(attacker) - began - a_piece * attacked["done"]
    cpus = max(cost, 0.0) / took
    _wait_for_calm(server)
    with _burners(cpus):
        burnt = _victim(attack, house, seconds)
    return Fairness(
        attack.name,
        alone["sps"],
        attacked["sps"],
        burnt["sps"],
        cpus,
        attacked["sps"] / max(burnt["sps"], 0.1),
    )


def _victim(attack: Attack, house: House, seconds: float) -> dict[str, Any]:
    module, *arguments = attack.victim
    command = [sys.executable, "-m", module, "--seconds", str(seconds), *arguments]
    done = subprocess.run(
        command,
        input=json.dumps(house.about),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=seconds + 60,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@contextmanager
def _attacker(attack: Attack, house: House) -> Iterator[psutil.Process]:
    module, *arguments = attack.attacker
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(house.about) + "\n")
        process.stdin.flush()
        if not process.stdout.readline():
            raise RuntimeError(f"the attacker of {attack.name} ended before it began")
        yield psutil.Process(process.pid)
    finally:
        process.stdin.close()
        process.wait(timeout=30)


@contextmanager
def _burners(cpus: float) -> Iterator[None]:
    """Processes that use so many CPUs between them, until the block ends."""
    shares = [1.0] * int(cpus) + [cpus % 1.0]
    command = [sys.executable, "-m", "bench.fairness.burner"]
    running = [
        subprocess.Popen([*command, str(share)], stdin=subprocess.PIPE)
        for share in shares
        if share > 0.01
    ]
    try:
        yield
    finally:
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=30)


def _wait_for_calm(server: psutil.Process) -> None:
    """Until the process has done what the attack left in its queues."""
    for _ in range(100):
        began = _cpu(server)
        time.sleep(0.2)
        if _cpu(server) - began < 0.02:
            return


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
