"""`capsign audit` reads the log that a replica serves over HTTPS, with a reader's certificate."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from capsign_adapter.config import Listen, LogConfig
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_cli.audit.served_log import Reader, ServedFiles
from capsign_evidence.archive.interface import ArchiveError
from capsign_wire.adapter.v1 import evidence_pb2, evidence_pb2_grpc
from support.adapter_rig import APP, AUDITOR, AdapterRig, now_ms
from support.ca import Authority
from support.replica import RunningReplica


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


@pytest.fixture
def served(tmp_path):
    rig = AdapterRig(tmp_path / "store")
    rig.sign(*(b"message %d" % number for number in range(300)))
    listen = Listen(address="127.0.0.1:0", public_address="127.0.0.1:0", streams=16)
    log = LogConfig(origin="capsign.test/log", public="readers", checkpoint_every_ms=3_600_000)
    replica = RunningReplica(tmp_path, rig, listen=listen, log=log)
    with replica.as_(APP) as channel:
        record = evidence_pb2.AuditRecord(sequence=1, time_ms=1, kind=evidence_pb2.AUDIT_KIND_OPEN)
        batch = evidence_pb2.AuditBatch(boot_id=b"b" * 16, records=[record])
        request = evidence_pb2.SubmitAuditRequest(batch=batch.SerializeToString())
        evidence_pb2_grpc.EvidenceServiceStub(channel).SubmitAudit(request, timeout=10)
    rig.checkpoints.current(now_ms())
    yield replica
    replica.stop()


@pytest.fixture
def run(served, tmp_path, capfd):
    def command(*arguments, who=AUDITOR, url=f"https://localhost:{served.replica.public_port}"):
        cert, key = served.authority.issue(who).write(tmp_path, who.replace("/", "_"))
        files = ("--reader-ca", tmp_path / "ca.pem", "--reader-cert", cert, "--reader-key", key)
        with pytest.raises(SystemExit) as ended:
            cli.main(["audit", "export", *map(str, (url, *files, *arguments))])
        shown = capfd.readouterr()
        return ended.value.code, shown.out, shown.err

    return command


def test_what_is_served_is_exported_as_from_the_store(served, run, tmp_path, capfd):
    cursor = tmp_path / "cursor"
    code, out, err = run("--cursor", cursor)
    assert code == 0, err
    with pytest.raises(SystemExit):
        cli.main(["audit", "export", str(served.rig.url).removeprefix("sqlite://")])
    assert out == capfd.readouterr().out
    assert "OPEN" in out or "Start" in out  # the agent's batch was fetched too
    served.rig.sign(b"one more")
    served.rig.checkpoints.current(now_ms())
    code, out, _ = run("--cursor", cursor)
    assert (code, len(out.splitlines())) == (0, 1)


def test_who_may_not_read_entries_is_told_what_is_missing(run):
    code, _, err = run("-o", "json", who=APP)
    assert code == 4
    assert "role auditor" in json.loads(err.splitlines()[-1])["error"]["advice"]


def test_no_certificate_and_no_secret_is_told(run, capfd):
    with pytest.raises(SystemExit) as ended:
        cli.main(["audit", "export", "https://localhost:1"])
    assert ended.value.code == 2
    assert "--reader-cert" in capfd.readouterr().err
    code, _, err = run(url="https://ann:s3cret@localhost")
    assert code == 4
    assert "s3cret" not in err


def test_a_file_that_is_not_there_yet_is_no_wrong_use(run, tmp_path):
    """The trust bundle of a new installation comes minutes after the pod that exports: with
    `--follow` it is looked for again, and the pod ended with exit code 2, again and again.
    """
    code, _, err = run("-o", "json", "--reader-ca", tmp_path / "later.pem")
    assert (code, "later.pem cannot be used (No such file" in err) == (4, True)


@pytest.fixture
def short_lived(tmp_path):
    """A listener that closes each connection after so many answers and says nothing of it, what
    reads from it, and how many connections there were.
    """
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    certificate, key = authority.issue(dns=("localhost",)).write(tmp_path, "served")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    connections: list[int] = []
    lives = [2, 1, 0, 5]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            super().setup()
            connections.append(lives[len(connections)])

        def do_GET(self):
            if not connections[-1]:
                self.close_connection = True
                return
            connections[-1] -= 1
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"data")
            self.close_connection = not connections[-1]

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    reader = Reader(tmp_path / "ca.pem", certificate, key)
    files = ServedFiles(f"https://localhost:{server.server_port}", reader)
    yield files, connections
    files.close()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_connection_that_has_ended_is_made_anew(short_lived):
    """The adapter's listener gives each 30 seconds. An export that followed the log told of a
    failure twice a minute, and one that took longer ended there with exit code 4. A new connection
    that is closed at once is a failure.
    """
    files, connections = short_lived
    assert [files.read("checkpoint") for _ in range(3)] == [b"data"] * 3
    assert len(connections) == 2
    with pytest.raises(ArchiveError, match="closed connection"):
        files.read("checkpoint")
    assert files.read("checkpoint") == b"data"
    assert len(connections) == 4
