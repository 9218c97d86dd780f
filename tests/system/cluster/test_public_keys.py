"""The Service for verifiers (`adapter.publicKeys`): a pod that has nothing of ours but the client
and the trust bundle verifies what another one signed.
"""

from __future__ import annotations

import json

from system.cluster.fleet import INJECT, SHOP, SYSTEM
from system.cluster.kit import manifests

SIGNS = """
import capsign, json
made = capsign.Signer().sign(b"header.payload", purpose="jwt", algorithm="ES256")
print(json.dumps({"kid": made.kid, "signature": made.jose.hex()}))
"""

VERIFIES = """
import capsign, json, os, ssl
told = json.loads(os.environ["SIGNED"])
url = "https://capsign-adapter-public.{system}.svc/v1/jwks/shop/orders-jwt?role=issuer"
tls = ssl.create_default_context(cafile="/trust/bundle.pem")
verifier = capsign.Verifier(url, algorithms=["ES256"], tls=tls)
signature = bytes.fromhex(told["signature"])
print("verified", verifier.verify(b"header.payload", signature, kid=told["kid"]).version)
try:
    verifier.verify(b"another", signature, kid=told["kid"])
except capsign.InvalidSignature:
    print("refused")
"""


def test_a_pod_without_an_agent_verifies_with_keys_of_the_service(fleet):
    labelled = {"labels": INJECT}
    app = manifests.python("app", SIGNS, fleet.image)
    fleet.developer.create(
        manifests.job(
            "signs", SHOP, manifests.pod_spec(app, serviceAccountName="orders"), **labelled
        )
    )
    fleet.developer.wait("condition=complete", "job/signs", SHOP)
    signed = fleet.developer("logs", "job/signs", "--container=app").splitlines()[-1]
    assert json.loads(signed)["kid"]
    verifier = manifests.python(
        "verifier",
        VERIFIES.format(system=SYSTEM),
        fleet.image,
        env=[{"name": "SIGNED", "value": signed}],
        volumeMounts=[{"name": "trust", "mountPath": "/trust", "readOnly": True}],
    )
    trust = {"name": "trust", "configMap": {"name": "capsign-trust-bundle"}}
    spec = manifests.pod_spec(verifier, volumes=[trust], automountServiceAccountToken=False)
    fleet.kubectl.create(manifests.job("verifies", SYSTEM, spec))
    fleet.kubectl.wait("condition=complete", "job/verifies", SYSTEM)
    said = fleet.kubectl("logs", "job/verifies", f"--namespace={SYSTEM}")
    assert said.split() == ["verified", "1", "refused"]
