"""Our published context vectors: written by an independent program, met by the production code."""

from __future__ import annotations

import importlib.util

import pytest
from capsign_adapter.algorithms.expand import expand
from capsign_adapter.decide.context import Context, hkdf_info
from capsign_adapter.keys.keyring import CacheSettings, Keyring
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_wire.algorithms import BY_NAME
from capsign_wire.types.v1 import signing_pb2
from support.fake_token import FakeToken
from support.vectors import FOLDER, load

PUBLISHED = load("context")
ROOT = bytes.fromhex(PUBLISHED["root"])
EVERY = pytest.mark.parametrize(
    "vector", PUBLISHED["vectors"], ids=lambda v: f"{v['case']}-{v['context']['algorithm']}"
)


def context_of(vector):
    fields = dict(vector["context"])
    return Context(
        epoch=int(fields.pop("epoch")), transcript=bytes.fromhex(fields.pop("transcript")), **fields
    )


def test_the_published_file_is_what_its_generator_writes():
    spec = importlib.util.spec_from_file_location(
        "make_context_vectors", FOLDER / "make_context_vectors.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.FILE.read_text() == module.make(), (
        "run tests/vectors/make_context_vectors.py and tell second implementers"
    )


def test_the_generator_shares_no_code_with_what_it_checks():
    source = (FOLDER / "make_context_vectors.py").read_text()
    assert "import capsign" not in source
    assert "from capsign" not in source


@EVERY
def test_context_and_info_are_encoded_as_published(vector):
    context = context_of(vector)
    assert context.encode().hex() == vector["encoding"]
    assert context.digest().hex() == vector["digest"]
    row = BY_NAME[context.algorithm]
    assert hkdf_info(context.purpose, context.digest(), row.okm_len).hex() == vector["info"]


@pytest.mark.parametrize(
    "features", [frozenset(), None], ids=["subkeys in memory", "subkeys inside"]
)
@EVERY
def test_the_keyring_derives_the_published_key(vector, features):
    token = FakeToken() if features is None else FakeToken(features=features)
    token.import_secret("root", ROOT)
    context = context_of(vector)
    number = BY_NAME[context.algorithm].number
    version = PUBLISHED["key_version"]
    algorithms = tuple(row.number for row in BY_NAME.values() if row.derivable)
    row = KeyVersionRow(
        "acme", "billing", version, signing_pb2.KEY_STATE_ACTIVE, algorithms, "root", b"", 0
    )
    signer = Keyring(token, CacheSettings(), lambda: 0).signer(
        row, context.purpose, number, context.digest()
    )
    assert signer.spki.hex() == vector["spki"]
    assert signer.kid == vector["kid"]
    if "hmac_of_capsign" in vector:
        assert signer.sign(b"capsign").hex() == vector["hmac_of_capsign"]


@EVERY
def test_keying_material_is_as_published(vector):
    token = FakeToken()
    token.import_secret("root", ROOT)
    info = bytes.fromhex(vector["info"])
    assert expand(lambda data: token.hmac("root", data), info, 32).hex() == vector["okm"]


def test_the_example_in_the_documentation_is_a_published_vector():
    text = "".join((FOLDER.parents[1] / "docs" / "formats.md").read_text().split())
    (vector,) = (
        v
        for v in PUBLISHED["vectors"]
        if (v["case"], v["context"]["algorithm"]) == ("plain", "ES256")
    )
    assert all(vector[name] in text for name in ("encoding", "digest", "info"))


def test_no_two_published_vectors_share_a_key():
    assert len({vector["okm"] for vector in PUBLISHED["vectors"]}) == len(PUBLISHED["vectors"])
