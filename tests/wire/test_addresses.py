"""host:port, as every process reads it: taken where it can be meant, and refused where gRPC would
take it for something else.
"""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address

import grpc
import pytest
from capsign_adapter import config as adapter_config
from capsign_adapter.decide.enrolment import plain
from capsign_adapter.front.peer_address import address_of
from capsign_cli import adapter_connection
from capsign_cli.failures import CliError
from capsign_injector import settings as injector
from capsign_wire import addresses, channels, settings
from cryptography import x509
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st
from support.agent_pki import TestCa
from support.ca import Authority

GOOD = [
    "10.0.0.1:7443",
    "adapter:7443",
    "capsign-adapter.capsign-system.svc:7443",
    "adapter.example.:1",
    "a_b.svc:65535",
    "unix:7443",
    "[::1]:7443",
    "[::ffff:10.0.0.1]:7443",
    "[64:ff9b::10.0.0.1]:7443",
    "[64:ff9b::a00:1]:7443",
    "[fe80::1%eth0]:7443",
    "[fe80::1%25eth0]:7443",
    "[fe80::1%4]:7443",
    "[2001:db8::1]:443",
]
BAD = {
    "10.0.0.1": "host:port",
    "adapter": "host:port",
    "10.0.0.1:": "host:port",
    "::1:7443": "in brackets",
    "fe80::1": "in brackets",
    "[::1]": "host:port",
    "10.0.0.1:99999": "at most 65535",
    "10.0.0.1:65536": "at most 65535",
    "10.0.0.1:-1": "host:port",
    "10.0.0.1:+80": "host:port",
    "10.0.0.1: 80": "host:port",
    "10.0.0.1:https": "host:port",
    "10.0.0.1:\u0661\u0662": "host:port",
    "10.0.0.1:7443\n": "host:port",
    "10.0.0.1:7443/x": "host:port",
    "10.0.0.256:1": "four numbers",
    "127.1:1": "four numbers",
    "0x7f000001:1": "four numbers",
    "010.0.0.1:1": "four numbers",
    "[10.0.0.1]:1": "IPv6 address",
    "[::1%]:1": "interface",
    "[::1%25]:x": "host:port",
    "[2001:db8::1%eth0]:1": "link-local",
    "[fe80::1%a/b]:1": "interface",
    "[fe80::1%" + "e" * 16 + "]:1": "interface",
    "[adapter]:1": "IPv6 address",
    "a..b:1": "DNS name",
    "-a:1": "DNS name",
    "a b:1": "DNS name",
    "b\u00fccher:1": "DNS name",
    "x" * 64 + ":1": "DNS name",
    "dns:///adapter:1": "without a scheme",
    "https://adapter:1": "without a scheme",
    "unix:/run/x.sock": "without a scheme",
    "ipv4:10.0.0.1:1": "without a scheme",
    "": "host:port",
}
EVERY = [":7443", "*:7443"]


@pytest.mark.parametrize("text", GOOD)
def test_what_can_be_meant_is_taken_by_every_reader(text):
    """`[::ffff:10.0.0.1]:7443` and zones were refused."""
    assert addresses.target(text) == addresses.listener(text)
    assert addresses.target(str(addresses.target(text))) == addresses.target(text)


@pytest.mark.parametrize("text", BAD)
def test_what_cannot_is_told_by_every_reader(text):
    """gRPC took port 99999 for 34463, and an address without a port for one with 443."""
    for read in (addresses.target, addresses.listener):
        with pytest.raises(ValueError, match=BAD[text]):
            read(text)


@pytest.mark.parametrize("text", EVERY)
def test_every_address_can_be_listened_on_and_not_connected_to(text):
    assert addresses.listener(text).listen == "[::]:7443"
    with pytest.raises(ValueError, match="connect"):
        addresses.target(text)


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "[::ffff:127.0.0.1]:0", "localhost:0", "[::1%lo]:0"],
)
def test_any_free_port_is_for_the_loopback(text):
    assert addresses.listener(text).port == 0
    with pytest.raises(ValueError, match="1 to 65535"):
        addresses.target(text)


@pytest.mark.parametrize(
    "text", ["0.0.0.0:0", ":0", "*:0", "[::]:0", "10.0.0.1:0", "adapter:0", "127.example:0"]
)
def test_elsewhere_nobody_would_find_it(text):
    with pytest.raises(ValueError, match="loopback"):
        addresses.listener(text)


@given(st.text(max_size=30) | st.from_regex(r"\[?[0-9a-f:.%*]+\]?:[0-9]*", fullmatch=True))
def test_whatever_is_taken_has_one_spelling_for_grpc(text):
    try:
        found = addresses.listener(text)
    except ValueError:
        return
    assert found.listen.isascii()
    assert 0 <= found.port <= 65_535
    assert addresses.listener(found.listen.replace("%25", "%")).port == found.port


@given(st.ip_addresses(), st.integers(1, 65_535))
def test_every_address_is_one(address, port):
    text = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    if isinstance(address, IPv6Address) and address.scope_id:
        return
    there = addresses.target(text)
    assert there.dial == f"dns:///{there}"
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    assert there == addresses.Address(socket.inet_ntop(family, address.packed), port)


def link_local():
    """A link-local address of this machine with its zone; None: it has none."""
    try:
        with open("/proc/net/if_inet6") as file:  # noqa: PTH123 - a table of the kernel's
            rows = [line.split() for line in file]
    except FileNotFoundError:
        return None
    found = [(row[0], row[5]) for row in rows if row[3] == "20"]
    return f"[{IPv6Address(int(found[0][0], 16))}%{found[0][1]}]" if found else None


HOSTS = ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "[::1%lo]", "[::1%25lo]"]


def free_port(host):
    family, loopback = (socket.AF_INET6, "::1") if "::1" in host else (socket.AF_INET, "127.0.0.1")
    with socket.create_server((loopback, 0), family=family) as one:
        return one.getsockname()[1]


@pytest.mark.parametrize("host", [*HOSTS, "link-local", "", "*"])
def test_grpc_listens_there_and_is_reached_there(host):
    if host == "link-local":
        host = link_local()
        if host is None:
            pytest.skip("no interface has a link-local address")
    asked = []

    class Servicer(health.HealthServicer):
        def Check(self, request, context):
            asked.append(context.peer())
            return super().Check(request, context)

    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(Servicer(), server)
    port = free_port(host)
    assert server.add_insecure_port(addresses.listener(f"{host}:{port}").listen) == port
    server.start()
    try:
        reached = addresses.target(f"{host if host not in {'', '*'} else '127.0.0.1'}:{port}")
        with channels.insecure(reached.dial) as channel:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    finally:
        server.stop(None).wait()
    assert address_of(asked[0]) is not None


@pytest.mark.parametrize("host", ["[::1]", "[0:0:0:0:0:0:0:1]", "[0::0001]", "[::0.0.0.1]"])
def test_a_certificate_for_an_ipv6_address_is_good_for_every_spelling_of_it(host):
    """gRPC holds the text of the target against its own spelling of what the certificate names: all
    but the first of these were told UNAVAILABLE, without a word about names.
    """
    names = x509.SubjectAlternativeName([x509.IPAddress(IPv6Address("::1"))])
    authority = Authority()
    issued = authority.issue(extensions=(names,))
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    shown = grpc.ssl_server_credentials([(issued.private_key, issued.certificate)])
    port = server.add_secure_port("[::1]:0", shown)
    server.start()
    try:
        trust = grpc.ssl_channel_credentials(authority.certificate)
        with channels.secure(addresses.target(f"{host}:{port}").dial, trust) as channel:
            assert (
                health_pb2_grpc.HealthStub(channel)
                .Check(health_pb2.HealthCheckRequest(), timeout=10)
                .status
            )
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("text", "one"),
    [
        ("[FD00:0::A]:1", "fd00::a"),
        ("[::FFFF:10.0.0.1]:1", "::ffff:10.0.0.1"),
        ("[::ffff:a00:1]:1", "::ffff:10.0.0.1"),
        ("[FE80::0:1%eth0]:1", "fe80::1%eth0"),
    ],
)
def test_an_ipv6_address_has_one_spelling(text, one):
    assert addresses.target(text).host == one


@pytest.mark.parametrize(
    ("arrived", "meant"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("64:ff9b::10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("64:ff9b:1::10.0.0.1", "64:ff9b:1::a00:1"),
        ("::10.0.0.1", "::a00:1"),
    ],
)
def test_a_pod_is_known_by_its_address_in_any_dress(arrived, meant):
    address = IPv6Address(arrived) if ":" in arrived else IPv4Address(arrived)
    assert str(plain(address)) == meant


ADAPTER = """
policy = "/p"
[listen]
address = "{address}"
health_address = "{health}"
[tls]
certificate = "/c"
private_key = "/k"
client_ca = "/a"
[token]
module = "/m"
label = "l"
pin_file = "/f"
[store]
url = "sqlite:///s"
[log]
origin = "x/log"
"""


@pytest.mark.parametrize("wrong", ["127.0.0.1", "0.0.0.0:0", "0.0.0.0:99999", "dns:///x:1"])
def test_processes_say_which_key(wrong, tmp_path):
    """They were taken, and the adapter listened on 443, on a port that nobody knew, or on 34463."""
    file = tmp_path / "adapter.toml"
    for key in ("address", "health_address"):
        given = {
            "address": "127.0.0.1:7443",
            "health": "127.0.0.1:0",
            key.removesuffix("_address"): wrong,
        }
        file.write_text(ADAPTER.format(**given))
        with pytest.raises(settings.SettingsError, match=rf"`listen.{key}` must"):
            adapter_config.load(file, {})
    for key in ("listen", "health"):
        with pytest.raises(settings.SettingsError, match=rf"`server.{key}` must"):
            injector.parse(f"server: {{{key}: '{wrong}'}}".encode(), "x")
    for key in ("targets", "enrolment_targets"):
        with pytest.raises(settings.SettingsError, match=rf"`adapter.{key}\[1\]` must"):
            injector.parse(f"adapter: {{{key}: ['a:1', '{wrong}']}}".encode(), "x")


@pytest.mark.parametrize(
    "url",
    [
        "https://x:0",
        "https://x:99999",
        "http://x",
        "https://",
        "https://x/api",
        "https://u@x",
        "https://x?y",
    ],
)
def test_an_api_server_is_a_host_and_a_port(url, tmp_path):
    with pytest.raises(ValueError, match="must"):
        addresses.https(url)
    assert addresses.https("https://[fd00::1]") == addresses.Address("fd00::1", 443)


@pytest.mark.parametrize("wrong", ["adapter", "adapter:99999", ":7443", "unix:/run/x"])
def test_the_command_line_says_so_too(wrong, tmp_path):
    """`revoke --adapter host` went to port 443, waited for its time to end, and said
    UNREACHABLE.
    """
    TestCa().write(tmp_path)
    files = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    adapter = adapter_connection.Adapter(wrong, *files, server_name="", log_key="")
    with pytest.raises(CliError, match="--adapter must"), adapter.channel():
        pass
