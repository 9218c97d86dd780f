"""Keeps TLS 1.2 out of the process's gRPC, which Python cannot tell a least version.

Imported before gRPC, which reads the variable when it is loaded (decision 85).
"""

from __future__ import annotations

import os

VARIABLE = "GRPC_SSL_CIPHER_SUITES"
"""What gRPC offers and takes up to TLS 1.2; those of TLS 1.3 are not chosen by it."""

NOBODYS = "ECDHE-PSK-CHACHA20-POLY1305"
"""A suite that gRPC knows and that needs a key shared beforehand, which gRPC never has: every
handshake below TLS 1.3 ends without a suite.
"""

os.environ.setdefault(VARIABLE, NOBODYS)
