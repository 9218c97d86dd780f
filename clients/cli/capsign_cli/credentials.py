"""Loads certificate files for a channel and checks them first: gRPC would only report that no
server answers.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from capsign_wire import pem, svid
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from capsign_cli.failures import USAGE, CliError

if TYPE_CHECKING:
    import grpc


def load(ca: Path, certificate: Path, private_key: Path) -> grpc.ChannelCredentials:
    """Channel credentials of these PEM files. Raises CliError if they cannot work, OSError if one
    cannot be read.
    """
    import grpc

    key = pem.lines(private_key.read_bytes())
    roots, chain = (pem.written(_certificates(file)) for file in (ca, certificate))
    try:
        ours = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        text = f"{private_key} is not a private key in PEM without a password."
        raise CliError(USAGE, "CREDENTIALS", text, "Give another file.") from None
    if x509.load_pem_x509_certificate(chain).public_key() != ours:
        text = f"{private_key} is not the key of {certificate}."
        raise CliError(USAGE, "CREDENTIALS", text, "Give --cert and --key of one identity.")
    try:
        svid.identity_of(x509.load_pem_x509_certificate(chain))
    except svid.NotAnSvidError as error:
        text = (
            f"{certificate} names nobody whom an adapter could know: it is no X.509-SVID. {error}"
        )
        raise CliError(
            USAGE, "CREDENTIALS", text, "Have one issued with one SPIFFE ID as its URI name."
        ) from None
    return grpc.ssl_channel_credentials(roots, key, chain)


def _certificates(file: Path) -> list[bytes]:
    try:
        found = pem.authorities(file.read_bytes())
        for one in found:
            x509.load_der_x509_certificate(one)
    except ValueError:
        raise CliError(
            USAGE, "CREDENTIALS", f"{file} is not a certificate in PEM.", "Give another file."
        ) from None
    return found


def out_of_time(certificate: Path, ca: Path, now: datetime.datetime | None = None) -> str:
    """Which of these certificates has ended or has not begun, as sentences; empty if none. `now` is
    a time with its zone; without it this machine's clock is used. If a file has several
    authorities, one that is valid is enough.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    ours, *_ = map(x509.load_der_x509_certificate, _certificates(certificate))
    roots = [x509.load_der_x509_certificate(one) for one in _certificates(ca)]
    ends = {
        certificate: ours.not_valid_after_utc,
        ca: max(one.not_valid_after_utc for one in roots),
    }
    begins = {
        certificate: ours.not_valid_before_utc,
        ca: min(one.not_valid_before_utc for one in roots),
    }
    said = [f"{file} ended at {_shown(end)}." for file, end in ends.items() if end < now]
    for file, begin in begins.items():
        if begin > now:
            said.append(
                f"{file} begins at {_shown(begin)}, and this machine's clock says "
                f"{_shown(now)}: set the clock."
            )
    return " ".join(said)


def _shown(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
