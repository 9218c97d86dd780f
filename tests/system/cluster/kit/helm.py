"""The part of Helm's command line that our guides use, on Helm 4 itself (its library, by way of
`helm_python`).

    helm install|upgrade NAME CHART [--install] [--values F] [--set K=V] [--set-file K=F]
        [--reuse-values]
                                    [--create-namespace] [--wait]
    helm rollback|test|uninstall NAME [--wait]
    all with --namespace N, on the cluster of $KUBECONFIG

Anything else is refused, so that a guide cannot say what was never seen working.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import helm_python

PATIENCE_S = 360


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="helm", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("install", "upgrade", "rollback", "test", "uninstall"):
        command = commands.add_parser(name, allow_abbrev=False)
        command.add_argument("release")
        command.add_argument("--namespace", "-n", default="default")
        command.add_argument("--wait", action="store_true")
        if name in {"install", "upgrade"}:
            command.add_argument("chart")
            command.add_argument("--install", action="store_true")
            command.add_argument("--create-namespace", action="store_true")
            command.add_argument("--reuse-values", action="store_true")
            command.add_argument("--values", "-f", action="append", default=[], type=Path)
            command.add_argument("--set", action="append", default=[])
            command.add_argument("--set-file", action="append", default=[])
        if name == "test":
            command.add_argument("--logs", action="store_true")
    return parser.parse_args(arguments)


def values(told: argparse.Namespace) -> dict[str, Any]:
    """Files first, then --set and --set-file, each over what was there."""
    found: dict[str, Any] = {}
    for file in told.values:
        lay(found, helm_python.values_from_yaml(file.read_text()))
    for pair in told.set:
        lay(found, helm_python.parse_set_string(pair))
    for pair in told.set_file:
        key, _, file = pair.partition("=")
        value: Any = Path(file).read_text()
        for part in reversed(key.split(".")):
            value = {part: value}
        lay(found, value)
    return found


def lay(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            lay(below[key], value)
        else:
            below[key] = value


def is_installed(config: helm_python.Config, release: str) -> bool:
    try:
        config.status(release)
    except helm_python.HelmError:
        return False
    return True


def main(arguments: list[str]) -> None:
    told = options(arguments)
    config = helm_python.Config(kubeconfig_path=os.environ["KUBECONFIG"], namespace=told.namespace)
    wait: dict[str, Any] = {"wait": "watcher", "timeout": PATIENCE_S} if told.wait else {}
    if told.command == "install" or (
        told.command == "upgrade" and told.install and not is_installed(config, told.release)
    ):
        made = config.install(
            told.chart, told.release, values(told), create_namespace=told.create_namespace, **wait
        )
        print(made.get("notes", ""))
    elif told.command == "upgrade":
        made = config.upgrade(
            told.chart, told.release, values(told), reuse_values=told.reuse_values, **wait
        )
        print(made.get("notes", ""))
    elif told.command == "rollback":
        config.rollback(told.release, **wait)
    elif told.command == "test":
        print(config.test(told.release, timeout=PATIENCE_S, logs=told.logs))
    else:
        config.uninstall(told.release, **wait)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except helm_python.HelmError as error:
        sys.exit(f"helm: {error}")
