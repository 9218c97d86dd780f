"""A PIN file is taken only when nobody else can read it, and its content shows nowhere."""

from __future__ import annotations

import os

import pytest
from capsign_adapter.token.interface import TokenUnavailableError
from capsign_adapter.token.open import TokenSettings
from capsign_adapter.token.pin import PIN_MAX_LEN, PinFileError, read_pin
from capsign_adapter.token.provision_lock import provision_lock

PIN = "p1n-5ecret"


def pin_file(directory, content=PIN + "\n", mode=0o600):
    path = directory / "pin"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_one_line_is_the_pin(tmp_path, end, mode):
    assert read_pin(pin_file(tmp_path, PIN + end, mode)) == PIN


def test_longest_pin(tmp_path):
    assert read_pin(pin_file(tmp_path, "x" * PIN_MAX_LEN + "\n")) == "x" * PIN_MAX_LEN


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o666, 0o610, 0o601, 0o777])
def test_a_mode_that_lets_others_in_is_refused(tmp_path, mode):
    with pytest.raises(PinFileError, match=rf"has mode {mode:04o}.*chmod 600"):
        read_pin(pin_file(tmp_path, mode=mode))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "x" * (PIN_MAX_LEN + 1),
        "x" * 5000,
        f"{PIN}\nsecond line\n",
        f"{PIN}\0",
        f"{PIN}\x1b[2J",
        b"\xff\xfe" + PIN.encode(),
    ],
    ids=["empty", "blank", "too long", "far too long", "two lines", "nul", "escape", "not UTF-8"],
)
def test_content_that_is_no_pin_is_refused_without_showing_it(tmp_path, content):
    with pytest.raises(PinFileError) as caught:
        read_pin(pin_file(tmp_path, content))
    assert PIN not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_a_link_out_of_its_directory_is_refused(tmp_path):
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(pin_file(tmp_path))
    with pytest.raises(PinFileError, match="link out of its directory"):
        read_pin(link)


def mounted_secret(directory, mode=0o400):
    """A Secret as the kubelet mounts it: the name is a link through `..data` to a directory that is
    replaced as one.
    """
    version = directory / "..2026_11_22_08_00_00.1"
    version.mkdir()
    pin_file(version, mode=mode)
    (directory / "..data").symlink_to(version.name)
    (directory / "pin").symlink_to("..data/pin")
    return directory / "pin"


def test_a_mounted_kubernetes_secret_is_read(tmp_path):
    assert read_pin(mounted_secret(tmp_path)) == PIN


@pytest.mark.parametrize("mode", [0o644, 0o404])
def test_a_mounted_secret_that_others_can_read_is_refused(tmp_path, mode):
    with pytest.raises(PinFileError, match=f"has mode {mode:04o}"):
        read_pin(mounted_secret(tmp_path, mode))


def test_processes_take_turns_at_a_mounted_secret(tmp_path):
    path = mounted_secret(tmp_path)
    with (
        provision_lock(path, 5),
        pytest.raises(TokenUnavailableError, match="making keys"),
        provision_lock(path, 0),
    ):
        pass
    with provision_lock(path, 0):
        pass


def test_absent_directory_and_pipe_are_refused(tmp_path):
    with pytest.raises(PinFileError, match="cannot be opened"):
        read_pin(tmp_path / "absent")
    with pytest.raises(PinFileError):
        read_pin(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(PinFileError, match="regular file"):  # and does not wait for a writer
        read_pin(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_file_of_another_user_is_refused(tmp_path):
    path = pin_file(tmp_path)
    os.chown(path, 12345, -1)
    with pytest.raises(PinFileError, match="belongs to user 12345"):
        read_pin(path)


def test_it_is_an_outage_and_not_a_refused_pin():
    assert issubclass(PinFileError, TokenUnavailableError)


def test_settings_hold_no_pin(tmp_path):
    settings = TokenSettings(tmp_path / "module.so", "capsign", pin_file(tmp_path))
    assert PIN not in repr(settings)
