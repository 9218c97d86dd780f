"""`helm test`: signs through the injected sidecar, verifies twice, and sees that a changed message
does not verify.
"""

import os
import sys

import capsign

purpose, algorithm = os.environ["PURPOSE"], os.environ["ALGORITHM"]
message = b"capsign helm test"
with capsign.Signer() as signer:
    signature = signer.sign(message, purpose=purpose, algorithm=algorithm, timeout=60)
    key = signer.verify(message, signature, purpose=purpose)
    try:
        signer.verify(b"another message", signature, purpose=purpose)
    except capsign.InvalidSignature:
        pass
    else:
        sys.exit("A signature verified for another message.")
print(
    f"signed and verified: {algorithm}, kid {signature.kid}, leaf {signature.leaf_index} "
    f"of the evidence log"
)
