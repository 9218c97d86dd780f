"""`capsign sign --bundle`: signature, entry and receipt in one file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsign_cli.failures import CliError, told

if TYPE_CHECKING:
    from capsign import PublicKey, Signature, Signer


def write_bundle(signer: Signer, made: Signature, context: dict[str, Any], path: Path) -> None:
    """Write the bundle of this signature, which is made and told already. Raises CliError that
    names its intent, by which the bundle is made later.
    """
    try:
        whole = signer.receipt(made).bundle(_public_keys(signer, made, context))
        path.write_bytes(whole)
    except Exception as error:
        said = told(error)
        if said is None:
            raise
        intent = made.intent_id.hex()
        text = f"The signature was made and is written, its bundle is not: {said.message}"
        advice = f"Run the same command with --intent {intent}: it gives the same signature."
        raise CliError.saying(
            replace(said, message=text, advice=f"{said.advice} {advice}".strip(), intent=intent)
        ) from error


def _public_keys(signer: Signer, made: Signature, context: dict[str, Any]) -> list[PublicKey]:
    """The public keys of the context in which it was signed, of each algorithm that signed."""
    from capsign_wire.algorithms import BY_NAME

    return [
        key
        for name in {one.algorithm for one in made.signatures} & BY_NAME.keys() - {"HS256"}
        for key in signer.public_keys(**{**context, "algorithm": name})
    ]
