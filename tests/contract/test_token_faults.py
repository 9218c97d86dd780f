"""Tokens that are not there, go away, or refuse: each answer says what is true, and none says
"absent" without having looked.
"""

from __future__ import annotations

import inspect
import multiprocessing
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pkcs11
import pytest
from capsign_adapter.token.interface import KeyMissingError, PinRejectedError, TokenUnavailableError
from capsign_adapter.token.session import token_error
from pkcs11 import exceptions
from support import needs, token_loss, tokens
from support.token_loss import apart

KINDS = {"softhsm": tokens.softhsm, "nss": tokens.nss}


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.nss if name == "nss" else ()) for name in KINDS]
)
def settings(request, tmp_path):
    return KINDS[request.param](tmp_path)


@pytest.fixture
def softhsm(tmp_path):
    return tokens.softhsm(tmp_path)


def token_directory(settings):
    """What holds the keys of a SoftHSM token."""
    (directory,) = [path for path in (settings.config.parent / "tokens").iterdir() if path.is_dir()]
    return directory


UPSTREAM = [
    kind
    for _, kind in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(kind, exceptions.PKCS11Error)
]


@pytest.mark.parametrize("kind", UPSTREAM, ids=lambda kind: kind.__name__)
def test_every_upstream_exception_is_an_outage_or_a_refused_pin(kind):
    mapped = token_error(kind("upstream detail"), "capsign")
    expected = (
        PinRejectedError
        if kind.__name__.startswith("Pin") and kind is not pkcs11.PinTooWeak
        else TokenUnavailableError
    )
    assert type(mapped) is expected
    assert not isinstance(mapped, KeyMissingError)
    assert "upstream detail" not in str(mapped)  # modules put templates and paths there


def test_wrong_pin_is_refused_once_and_not_tried_again(settings):
    settings.pin_file.write_text("not the right one\n")
    kind, text = apart(token_loss.opening, settings)
    assert kind == "PinRejectedError"
    assert "PIN file" in text
    assert "not the right one" not in text


def test_after_a_refused_pin_the_token_is_left_alone(softhsm):
    assert apart(token_loss.pin_tries, softhsm) == ["PinRejectedError"] * 5 + [1]


def test_a_pin_that_worked_and_is_refused_once_is_tried_again_later(softhsm):
    """One CKR_PIN_INCORRECT at a log-in that had worked: an adapter refused all signing until
    somebody restarted it.
    """
    assert apart(token_loss.pin_refused_once, softhsm) == [
        "ok",
        "PinRejectedError",
        "PinRejectedError",
        "ok",
        "ok",
    ]


def test_a_locked_pin_is_never_tried_again(softhsm):
    assert apart(token_loss.pin_locked_once, softhsm) == [
        "ok",
        "PinRejectedError",
        "PinRejectedError",
        "PinRejectedError",
    ]


def test_missing_module(softhsm, tmp_path):
    kind, text = apart(token_loss.opening, replace(softhsm, module=tmp_path / "libsofthsm2.so"))
    assert kind == "TokenUnavailableError"
    assert "token.module" in text


def test_module_that_is_no_library(softhsm, tmp_path):
    fake = tmp_path / "libsofthsm2.so"
    fake.write_text("not a library")
    assert apart(token_loss.opening, replace(softhsm, module=fake))[0] == "TokenUnavailableError"


def test_missing_token(settings):
    kind, text = apart(token_loss.opening, replace(settings, label="nowhere"))
    assert kind == "TokenUnavailableError"
    assert "token.label" in text


def test_missing_configuration(settings, tmp_path):
    kind, _ = apart(token_loss.opening, replace(settings, config=tmp_path / "nothing"))
    assert kind == "TokenUnavailableError"


@pytest.mark.nss
def test_nss_needs_its_directory(tmp_path):
    kind, text = apart(token_loss.opening, replace(tokens.nss(tmp_path), config=None))
    assert kind == "TokenUnavailableError"
    assert "token.config" in text


def test_bad_pin_file_is_an_outage_before_the_token_is_asked(softhsm):
    softhsm.pin_file.chmod(0o644)
    kind, text = apart(token_loss.opening, softhsm)
    assert kind == "PinFileError"
    assert "chmod 600" in text


@pytest.mark.system
@pytest.mark.parametrize("what", ["the token", "all tokens"])
def test_vanished_softhsm_token_is_unavailable_and_comes_back(softhsm, what):
    lost = token_directory(softhsm) if what == "the token" else token_directory(softhsm).parent
    seen = apart(token_loss.lost_and_restored, softhsm, lost)
    assert len(seen["while away"]) == 9
    for name, verdicts in seen["while away"].items():
        assert verdicts == ["TokenUnavailableError"] * 2, name
    assert seen["back"] == "ok"
    assert seen["same"]


@pytest.mark.nss
@pytest.mark.system
def test_vanished_nss_database_is_never_read_as_absence(tmp_path):
    settings = tokens.nss(tmp_path)
    seen = apart(token_loss.lost_and_restored, settings, settings.config)
    for name, verdicts in seen["while away"].items():
        # softokn keeps its files open, so a call may still be answered, and rightly; it must not be
        # answered with "missing".
        assert set(verdicts) <= {"TokenUnavailableError", "ok"}, name
    assert seen["back"] == "ok"


@pytest.mark.system
def test_token_replaced_by_a_namesake_is_not_taken_for_it(softhsm, tmp_path_factory):
    other = tokens.softhsm(tmp_path_factory.mktemp("other"))
    other.pin_file.replace(other.pin_file.with_name("unused"))
    assert (
        apart(token_loss.replaced, softhsm, token_directory(softhsm), token_directory(other))
        == "TokenUnavailableError"
    )


@pytest.mark.system
def test_processes_that_all_open_it_at_once_all_get_in(softhsm):
    with ThreadPoolExecutor(4) as pool:
        opened = [
            pool.submit(apart, token_loss.open_again_and_again, softhsm, 40) for _ in range(4)
        ]
        assert [future.result() for future in opened] == [["ok"] * 40] * 4


def kill_in_a_login(settings, file):
    """Kill processes that log in, each when it has just emptied the file, until one has had no time
    to fill it again.
    """
    for _ in range(60):
        victim = multiprocessing.get_context("spawn").Process(
            target=token_loss.log_in_for_ever, args=(settings,)
        )
        victim.start()
        while file.stat().st_size and victim.is_alive():
            pass
        victim.kill()
        victim.join()
        if file.stat().st_size == 0:
            return
    pytest.fail("no kill hit a login")


@pytest.mark.system
def test_a_softhsm_token_survives_kill_9_in_a_login(softhsm):
    """`token.object` was left empty, and with it every key was lost for good."""
    made = apart(token_loss.one_of_each, softhsm)
    file = token_directory(softhsm) / "token.object"
    kill_in_a_login(softhsm, file)
    assert apart(token_loss.listed, softhsm) == sorted(made)
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_empty_token_file_without_a_copy_is_a_missing_token(softhsm):
    (token_directory(softhsm) / "token.object").write_bytes(b"")
    kind, text = apart(token_loss.opening, softhsm)
    assert kind == "TokenUnavailableError"
    assert "token.label" in text


def test_a_copy_that_cannot_be_made_does_not_end_signing(softhsm):
    directory = token_directory(softhsm)
    (directory / "token.object.kept").mkdir()
    assert apart(token_loss.listed, softhsm) == []


@pytest.mark.system
def test_key_destroyed_by_another_process_is_missing_and_its_successor_found(softhsm):
    assert apart(token_loss.destroyed_from_elsewhere, softhsm) == [
        "KeyMissingError",
        "KeyMissingError",
        "ok",
        "KeyExistsError",
    ]


def test_stale_handle_is_looked_up_again(settings):
    assert apart(token_loss.object_gone_below, settings) == ["KeyMissingError"]


def test_two_keys_of_one_label_are_never_chosen_between(settings):
    assert apart(token_loss.doubled, settings) == ["TokenUnavailableError"]


@pytest.mark.system
def test_processes_that_make_the_same_labels_leave_one_key_each(softhsm):
    with ThreadPoolExecutor(3) as pool:
        raced = [pool.submit(apart, token_loss.race_to_generate, softhsm, 40) for _ in range(3)]
        verdicts = [future.result() for future in raced]
    made = [name for name in apart(token_loss.listed, softhsm) if name.startswith("raced/")]
    assert len(made) == len(set(made))
    for number, label in enumerate(zip(*verdicts, strict=True)):
        assert label.count("ok") <= 1
        assert set(label) <= {
            "ok",
            "KeyExistsError",
            "TokenUnavailableError",
        }  # the last may have made it: it says "look"
        assert "ok" not in label or f"raced/{number}" in made


def test_lost_session_is_reopened_unseen(settings):
    same, once, later = apart(token_loss.session_closed_below, settings)
    assert same
    # making a key is not repeated: the first try may have made it
    assert once == "TokenUnavailableError"
    assert later == "ok"


def test_forked_child_finds_it_closed(softhsm):
    assert apart(token_loss.open_and_fork, softhsm) == ("TokenUnavailableError", True)


def test_closed_is_unavailable_and_can_be_opened_again(settings):
    assert apart(token_loss.reopened, settings) == ["RuntimeError", "TokenUnavailableError", True]


def test_an_outsiders_tool_sees_the_keys_as_sensitive_and_never_extractable(softhsm):
    labels = apart(token_loss.one_of_each, softhsm)
    command = [
        needs.pkcs11_tool(),
        "--module",
        str(softhsm.module),
        "--login",
        "--pin",
        "env:TEST_PIN",
        "--list-objects",
    ]
    shown = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={
            "SOFTHSM2_CONF": str(softhsm.config),
            "TEST_PIN": softhsm.pin_file.read_text().strip(),
        },
    ).stdout
    objects = {}
    for block in (
        shown.replace("Public Key Object", "\0Public")
        .replace("Private Key Object", "\0Private")
        .split("\0")
    ):
        for part in block.replace("Secret Key Object", "\0Secret").split("\0"):
            fields = dict(line.strip().split(":", 1) for line in part.splitlines() if ":" in line)
            if part.startswith(("Private", "Secret")):
                objects[fields["label"].strip()] = fields["Access"]
    assert sorted(objects) == sorted(labels)
    for label, access in objects.items():
        flags = {flag.strip() for flag in access.split(",")}
        assert {"sensitive", "always sensitive", "never extractable", "local"} <= flags, label
        assert "extractable" not in flags
