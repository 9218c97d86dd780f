"""An authority for `--check-config`: it checks that it could sign, and signs, records and writes
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from capsign_wire import settings
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import load_der_x509_certificate

from capsign_adapter.decide import authority_schedule
from capsign_adapter.enrol.authority import Authority, Issued, p256
from capsign_adapter.enrol.certificates import leaf_certificate, root_certificate

_LIFE_MS = 60_000


class Rehearsal(Authority):
    """Certifies with a throw-away key."""

    def issue(self, spiffe_id: str, spki: bytes, now_ms: int, names: Sequence[str] = ()) -> Issued:
        """Returns a certificate that nobody trusts, if a real one could be issued. Raises
        SettingsError if none could.
        """
        row = authority_schedule.signing(self.rows(), now_ms)
        if row is None:
            sentence = (
                "No certificate authority of this deployment can sign now. See "
                "`capsign-adapter authority status`."
            )
            raise settings.SettingsError(sentence, key="identity")
        key, not_after_ms = ec.generate_private_key(ec.SECP256R1()), now_ms + _LIFE_MS
        root = load_der_x509_certificate(
            root_certificate(key, 0, "rehearsal.invalid", now_ms, not_after_ms)
        )
        public = p256(spki)
        return Issued(
            (leaf_certificate(key, root, public, spiffe_id, now_ms, not_after_ms, names),),
            not_after_ms,
            row.version,
        )
