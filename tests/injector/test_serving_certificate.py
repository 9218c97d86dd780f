"""What the machine of `test_serving_certificate_model.py` leaves out: exact times, what is stored,
what mounted files do.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from capsign_injector.certificate import certificates, issuing, mounted, rotation, secret_data
from capsign_injector.certificate.certificates import BACKDATED_S, CertificateError
from capsign_injector.certificate.rotation import Material, Publish, Store, Terms, View, Wait
from capsign_injector.certificate.secret_data import StoredError
from capsign_injector.serve.metrics import OUTCOMES, Metrics
from capsign_injector.watched_files import FileError

NOW = 1_800_000_000
TERMS = Terms(
    ("a.b.svc",), authority_life_s=9_000, leaf_life_s=3_000, propagation_s=100, patience_s=60
)


def made(now: int = NOW) -> Material:
    step = rotation.next_step(View(None, None, frozenset(), now), TERMS)
    assert isinstance(step, Store)
    return step.material


def known(material: Material) -> frozenset[bytes]:
    return frozenset(one.der for one in certificates.read_all(material.bundle()))


def at(material: Material, now: int, **more: object) -> rotation.Step:
    return rotation.next_step(View(material, None, known(material), now, **more), TERMS)


def test_the_steps_of_a_rotation_and_their_times():
    material = made()
    assert at(material, NOW) == Wait(NOW + 2_000)
    assert at(material, NOW + 1_999) == Wait(NOW + 2_000)
    renewed = at(material, NOW + 2_000)
    assert isinstance(renewed, Store)
    assert renewed.why == "leaf_renewed"
    prepared = at(material, NOW, rotation="today")
    assert isinstance(prepared, Store)
    assert prepared.why == "authority_prepared"
    assert rotation.next_step(
        View(prepared.material, None, known(material), NOW), TERMS
    ) == Publish(prepared.material.bundle())
    noted = at(prepared.material, NOW + 7)
    assert noted == Store(
        replace(prepared.material, next_published_at=NOW + 7), "authority_published"
    )
    assert at(noted.material, NOW + 106) == Wait(NOW + 107)
    moved = at(noted.material, NOW + 107)
    assert isinstance(moved, Store)
    assert (moved.why, moved.material.authority) == ("authority_moved", prepared.material.next)
    assert at(moved.material, NOW + 206) == Wait(NOW + 207)
    retired = at(moved.material, NOW + 207)
    assert retired == Store(
        replace(moved.material, previous=None, previous_until=0), "authority_retired"
    )
    assert at(retired.material, NOW + 207, rotation="today") == Wait(NOW + 107 + 2_000), (
        "what was asked for is done once"
    )


def test_until_when_a_replica_may_be_sure():
    material = made()
    assert rotation.sure_until(material, NOW, TERMS) == NOW + 200
    upcoming = replace(material, next=issuing.make_authority(9_000, NOW))
    assert rotation.sure_until(upcoming, NOW, TERMS) == NOW + 200
    published = replace(upcoming, next_published_at=NOW - 60)
    assert rotation.sure_until(published, NOW, TERMS) == NOW + 140
    assert rotation.sure_until(material, NOW + 2_950, TERMS) == NOW + 3_000, (
        "a leaf that ends is sure of nothing"
    )


def test_a_leaf_does_not_outlive_its_authority_and_is_not_renewed_for_nothing():
    material = made()
    late = replace(
        material, leaf=issuing.make_leaf(material.authority, TERMS.names, 3_000, NOW + 8_000)
    )
    assert certificates.read(late.leaf.certificate).not_after == NOW + 9_000
    upcoming = replace(late, next=issuing.make_authority(9_000, NOW), next_published_at=NOW + 8_950)
    assert at(upcoming, NOW + 8_990) == Wait(NOW + 9_050)


@pytest.mark.parametrize("now", [NOW + 9_000, NOW - BACKDATED_S - 1], ids=["ended", "not begun"])
def test_an_authority_that_no_verifier_takes_is_replaced_at_once(now):
    step = at(made(), now)
    assert isinstance(step, Store)
    assert step.why == "authority_made"


def test_what_is_stored_is_read_back_and_shown_to_nobody():
    full = replace(
        made(), next=issuing.make_authority(9_000, NOW), next_published_at=NOW, rotation="x"
    )
    assert secret_data.decode(secret_data.encode(full)) == full
    assert secret_data.decode({}) is None
    assert secret_data.decode({"tls.crt": b""}) is None
    assert "PRIVATE" not in repr(full)


@pytest.mark.parametrize(
    "change",
    [
        {"format": b"2"},
        {"tls.key": b"x"},
        {"ca.key": made().authority.key},
        {"ca.crt": made().authority.certificate, "ca.key": b""},
        {"previous-ca.crt": made().leaf.certificate, "previous-ca.until": b"1"},
        {"previous-ca.crt": made().authority.certificate, "previous-ca.until": b"-1"},
        {"next-ca.crt": made().authority.certificate},
        {"surprise": b"x"},
    ],
    ids=[
        "format",
        "no key",
        "other key",
        "no authority key",
        "no authority",
        "time",
        "half",
        "unknown",
    ],
)
def test_what_is_not_ours_is_refused(change):
    with pytest.raises(StoredError):
        secret_data.decode({**secret_data.encode(made()), **change})


def test_a_leaf_of_another_authority_is_refused():
    mine, other = made(), made()
    with pytest.raises(StoredError, match="not signed by the authority"):
        secret_data.decode(secret_data.encode(replace(mine, authority=other.authority)))


def test_a_mounted_bundle_follows_its_link_and_holds_certificates_only(tmp_path):
    path, authority = tmp_path / "bundle.pem", made().authority
    watched = mounted.trust_bundle(str(path))
    with pytest.raises(FileError, match="no such file"):
        watched.current()
    (tmp_path / "1").write_bytes(b"# a comment\r\n" + authority.certificate)
    path.symlink_to("1")
    assert watched.current().encode() == authority.certificate
    for number, content in enumerate(
        [b"", authority.key, authority.certificate + authority.key, b"x" * 300_000, b"hello"]
    ):
        (tmp_path / f"bad-{number}").write_bytes(content)
        (tmp_path / "new").symlink_to(f"bad-{number}")
        (tmp_path / "new").rename(path)
        with pytest.raises(FileError) as caught:
            watched.current()
        assert "bundle.pem" in str(caught.value)
        assert "PRIVATE" not in str(caught.value)


def test_certificates_are_bounded():
    with pytest.raises(CertificateError, match="more than 32"):
        certificates.read_all(made().authority.certificate * 33)


def test_metrics_are_text_that_adds_up():
    metrics = Metrics()
    metrics.count("injected", 0.0015)
    metrics.count("refused", 99.0)
    metrics.gauges["g"] = ("Help.", lambda: 2)
    text = metrics.text()
    assert all(f'outcome="{outcome}"' in text for outcome in OUTCOMES)
    assert 'bucket{le="0.001"} 0' in text
    assert 'bucket{le="0.002"} 1' in text
    assert 'bucket{le="+Inf"} 2' in text
    assert "\ng 2\n" in text
    with pytest.raises(KeyError):
        metrics.count("surprise", 0.0)
