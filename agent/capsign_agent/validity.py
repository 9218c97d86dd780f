"""When the agent's own certificate ends, read from its DER.

Only our own certificate is read here, to renew it in time and to say in an error why adapters refuse it; no decision rests on it.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

from capsign_agent.identity import der


def not_after(certificate_pem: bytes) -> float:
    """Seconds since 1970, RFC 5280 section 4.1.2.5. Raises ValueError if the first PEM block is no certificate."""
    text = certificate_pem.decode("ascii", "replace")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    block = begin + text.partition(begin)[2].partition(end)[0] + end
    to_be_signed, at = der.after_issuer(ssl.PEM_cert_to_DER_cert(block + "\n"))
    validity = der.content(to_be_signed, at, der.SEQUENCE)[0]
    at = der.content(validity, 0, None)[1]
    if at >= len(validity):
        raise ValueError("no time where a certificate has its end")
    tag = validity[at]
    stamp = der.content(validity, at, None)[0].decode("ascii", "replace")
    # RFC 5280: two-digit years from 50 on are of the last century; strptime's own pivot is 69.
    if tag == der.UTC_TIME:
        stamp = ("19" if stamp[:2] >= "50" else "20") + stamp
    elif tag != der.GENERALIZED_TIME:
        raise ValueError("no time where a certificate has its end")
    return datetime.strptime(stamp, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
