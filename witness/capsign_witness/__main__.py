"""capsign-witness: `init` makes a witness, `keys` shows its verifier keys, `serve` cosigns."""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import sys
import time
from pathlib import Path

from capsign_wire import addresses, logs, std_streams
from capsign_wire.hardening import harden

from capsign_witness import __version__, keys, serve
from capsign_witness.failures import WitnessError
from capsign_witness.state import State
from capsign_witness.witness import Witness, known_logs


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit code 0, or 2 for anything that keeps it from doing what was asked."""
    std_streams.hold(answers=True)
    harden()
    os.umask(0o077)
    given = _parser().parse_args(arguments)
    logs.configure("capsign-witness")
    try:
        {"init": _init, "keys": _keys, "serve": _serve}[given.command](given)
    except (WitnessError, OSError, ValueError) as error:
        print(f"capsign-witness cannot do that. {error}", file=sys.stderr)  # noqa: T201 - for the person
        raise SystemExit(2) from None


def _init(given: argparse.Namespace) -> None:
    made = keys.make(given.dir, given.name)
    State.create(given.dir)
    _show(made)


def _keys(given: argparse.Namespace) -> None:
    _show(keys.load(given.dir))


def _show(made: keys.WitnessKeys) -> None:
    for key in made.verifiers:
        print(key.text())  # noqa: T201 - the answer


def _serve(given: argparse.Namespace) -> None:
    prefix = given.prefix.rstrip("/")
    if prefix and not prefix.startswith("/"):
        raise WitnessError("The prefix of the paths begins with a slash.")
    if given.of_one_address < 1:
        raise WitnessError("One address has at least one connection.")
    own = keys.load(given.dir)
    known = known_logs(given.logs.read_bytes())
    address = addresses.listener(given.listen)
    context = None
    if given.certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(given.certificate, given.private_key)
    state = State(given.dir)
    try:
        witness = Witness(own, state, known, lambda: int(time.time()))
        bounds = serve.Bounds(of_one_address=given.of_one_address)
        asyncio.run(serve.run(serve.Front(witness, prefix, bounds), address, context, bounds))
    finally:
        state.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="capsign-witness", description=__doc__)
    parser.add_argument("--version", action="version", version=f"capsign-witness {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, told in (
        ("init", "make keys and state of a new witness"),
        ("keys", "show the verifier keys, for policy files"),
        ("serve", "answer logs, over HTTP"),
    ):
        one = commands.add_parser(name, help=told)
        one.add_argument("--dir", type=Path, required=True, help="where keys and state are")
        if name == "init":
            one.add_argument("--name", required=True, help="a URL without scheme, unique for ever")
        if name == "serve":
            _serve_options(one)
    return parser


def _serve_options(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--logs", type=Path, required=True, help="file with a line `log <verifier key>` for each"
    )
    one.add_argument("--listen", default="127.0.0.1:7380", help="host:port")
    one.add_argument("--prefix", default="", help="what stands before the paths, if anything")
    one.add_argument(
        "--of-one-address",
        type=int,
        metavar="CONNECTIONS",
        default=serve.USUAL.of_one_address,
        help=f"most connections of one address (%(default)s of {serve.USUAL.connections}); behind "
        "a proxy, which has them all, as many as it opens",
    )
    one.add_argument("--certificate", type=Path, help="PEM; with it the witness serves HTTPS")
    one.add_argument("--private-key", type=Path, help="PEM of its key, if in another file")


if __name__ == "__main__":
    main()
