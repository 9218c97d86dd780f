"""The join of what there is to sign with."""

from dataclasses import replace

from capsign_adapter.decide.inventory import QUANTUM_MS, Known, inventory, is_exposed
from capsign_adapter.decide.policy import Key, KeyKind, Lifetime
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.model.drift import KeyUse
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2
from support.adapter_rig import POLICY

NOW = 1_800_000_000_000
YEAR = 365 * 24 * 3_600_000
IN_FORCE = parse_policy(POLICY.encode())
ED25519, ES256, ML_DSA, HS256 = (
    algorithms_pb2.ALGORITHM_ED25519,
    algorithms_pb2.ALGORITHM_ES256,
    algorithms_pb2.ALGORITHM_ML_DSA_65,
    algorithms_pb2.ALGORITHM_HS256,
)
ONE = KeyVersionRow(
    "demo",
    "orders",
    1,
    signing_pb2.KEY_STATE_DEACTIVATED,
    (ED25519,),
    "capsign/demo/orders/1",
    bytes(8),
    NOW,
    activated_ms=NOW,
)
TWO = replace(ONE, version=2, label="capsign/demo/orders/2", activated_ms=0)
OLD = replace(ONE, key="old", label="capsign/demo/old/1", derived=False)
OBJECTS = [
    ("capsign/demo/orders/1", ("secret-key",)),
    ("capsign/demo/orders/1/attest", ("private-key", "public-key")),
    ("capsign/demo/orders/10", ("secret-key",)),
    ("capsign/demo/pepper", ("secret-key",)),
    ("capsign/log", ("private-key", "public-key")),
    ("capsign/mint", ("secret-key",)),
    ("capsign/authority/3", ("private-key", "public-key")),
    ("stranger", ("data",)),
]
ACCOUNTED = frozenset(label for label, _ in OBJECTS) - {"stranger", "capsign/demo/orders/10"}


def made(policy=IN_FORCE, uses=()):
    versions = {("demo", "orders"): (TWO, ONE), ("demo", "old"): (OLD,)}
    return inventory(policy, Known(versions, uses, OBJECTS, ACCOUNTED), NOW)


def key(name: str, found):
    return next(one for one in found.keys if one.name == name)


def test_keys_of_the_policy_and_of_the_store_are_both_there():
    found = made()
    assert [one.name for one in found.keys] == ["old", "orders", "release"]
    assert [one.in_policy for one in found.keys] == [False, True, True]
    assert key("release", found).versions == ()
    assert key("old", found).kind is KeyKind.DIRECT
    assert key("old", found).algorithms == (ED25519,)
    assert found.tenants == ("demo",)


def test_a_version_has_its_objects_and_no_others():
    two, one = key("orders", made()).versions
    assert one.objects == ("capsign/demo/orders/1", "capsign/demo/orders/1/attest")
    assert two.objects == ()


def test_a_cryptoperiod_ends_from_the_activation_on():
    lives = replace(IN_FORCE, keys=(replace(IN_FORCE.keys[0], lifetime=Lifetime(YEAR)),))
    two, one = key("orders", made(lives)).versions
    assert (one.ends_ms, two.ends_ms) == (NOW + YEAR, 0)
    assert key("old", made()).versions[0].ends_ms == NOW + 2 * YEAR


def test_last_use_is_of_that_version():
    two, one = key("orders", made(uses=[KeyUse("demo", "orders", 1, NOW + 5, 7)])).versions
    assert (one.last_used_ms, one.uses) == (NOW + 5, 7)
    assert (two.last_used_ms, two.uses) == (0, 0)


def test_grants_and_whom_they_let_sign():
    found = key("orders", made())
    workloads = {w for grant in IN_FORCE.grants if grant.key == "orders" for w in grant.workloads}
    assert found.grants == tuple(
        sorted(grant.name for grant in IN_FORCE.grants if grant.key == "orders")
    )
    assert found.subjects == len(workloads)


def test_every_object_says_what_it_is_for_and_strangers_do_not():
    told = {one.label: (one.purpose, one.known) for one in made().objects}
    assert told == {
        "capsign/demo/orders/1": ("key demo/orders/1", True),
        "capsign/demo/orders/1/attest": ("attestations of demo/orders/1", True),
        "capsign/demo/orders/10": ("", False),
        "capsign/demo/pepper": ("commitments of demo", True),
        "capsign/log": ("checkpoints of the log", True),
        "capsign/mint": ("handles", True),
        "capsign/authority/3": ("authority 3 of identities", True),
        "stranger": ("", False),
    }


def test_a_horizon_beyond_2035_exposes_what_a_quantum_computer_can_forge():
    far = QUANTUM_MS - NOW + 1
    assert is_exposed([ES256], far, NOW)
    assert is_exposed([ML_DSA, ES256], far, NOW)
    assert not is_exposed([ML_DSA, HS256], far, NOW)
    assert not is_exposed([ES256], far - 1, NOW)
    assert not is_exposed([ES256], 0, QUANTUM_MS + 1)


def test_a_key_without_versions_has_its_rotation_and_horizon():
    keys = (
        Key("demo", "k", KeyKind.DERIVED, frozenset({ES256}), lifetime=Lifetime(YEAR, 50 * YEAR)),
    )
    (found,) = inventory(replace(IN_FORCE, keys=keys), Known({}, (), (), frozenset()), NOW).keys
    assert (found.cryptoperiod_ms, found.horizon_ms, found.exposed) == (YEAR, 50 * YEAR, True)
