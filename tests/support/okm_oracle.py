"""What no process but the adapter should know: asks the token of a deployment for the keying
material of contexts.

A process of its own (`python -m support.okm_oracle`), because a module logs in for a whole process,
and so that the test's own memory is not that of a process which has the token open. Reads JSON,
answers JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from capsign_adapter.algorithms.expand import expand
from capsign_adapter.decide.context import Context, hkdf_info
from capsign_adapter.keys import labels
from capsign_adapter.keys.commitment import KEY_DOMAIN
from capsign_adapter.keys.mint_key import mint_seed
from capsign_adapter.token.open import TokenSettings, open_token

OKM_LEN = 32


def ask(token: dict[str, str], contexts: list[Context]) -> dict[str, Any]:
    """The OKM of each context, in order, the seed of the handle mint, and the tenant's commitment
    key. Bytes.
    """
    question = {
        "token": token,
        "contexts": [asdict(one) | {"transcript": one.transcript.hex()} for one in contexts],
    }
    paths = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    environ = os.environ | {"PYTHONPATH": paths, "SOFTHSM2_CONF": token["conf"]}
    command = [sys.executable, "-m", "support.okm_oracle"]
    done = subprocess.run(
        command,
        input=json.dumps(question),
        capture_output=True,
        text=True,
        env=environ,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return {
        "okms": [bytes.fromhex(one) for one in told["okms"]],
        "mint": bytes.fromhex(told["mint"]),
        "commitment": bytes.fromhex(told["commitment"]),
    }


def main() -> None:
    question = json.load(sys.stdin)
    paths = question["token"]
    token = open_token(
        TokenSettings(Path(paths["module"]), paths["label"], Path(paths["pin_file"]))
    )
    okms = []
    for fields in question["contexts"]:
        context = Context(**fields | {"transcript": bytes.fromhex(fields["transcript"])})
        label = labels.key_version(context.tenant, context.key, context.epoch)
        info = hkdf_info(context.purpose, context.digest(), OKM_LEN)
        okms.append(expand(lambda data, label=label: token.hmac(label, data), info, OKM_LEN).hex())
    commitment = token.hmac(labels.pepper(question["contexts"][0]["tenant"]), KEY_DOMAIN)
    json.dump(
        {"okms": okms, "mint": mint_seed(token).hex(), "commitment": commitment.hex()}, sys.stdout
    )
    token.close()


if __name__ == "__main__":
    main()
