"""The service that `protoken demo` starts: it ends with whoever started it. The demo itself is run by hand."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from deployment.cli.service import demo, service_process
from deployment.errors import StartError
from tests.end_to_end.service import free_port
from tests.waiting import PATIENCE_S, until


@pytest.mark.slow
def test_a_service_that_cannot_start_is_told_with_its_log(tmp_path):
    """What the service says when it refuses to start is in the log that the error names, and no process is left."""
    log = tmp_path / "serve.log"
    settings = {"bundle": str(tmp_path / "none"), "ledger": f"sqlite:///{tmp_path}/ledger.db"}
    before = psutil.Process().children(recursive=True)  # servers of other tests

    with pytest.raises(StartError, match=r"serve\.log"), service_process.service_apart(settings, log):
        pass

    assert "none" in log.read_text()
    assert set() == {*psutil.Process().children(recursive=True)} - {*before}


def test_another_port_is_taken_where_the_wanted_one_is_busy():
    """A port that somebody listens on is left to them."""
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        wanted = busy.getsockname()[1]

        assert wanted != service_process._free_port(wanted)
    assert wanted == service_process._free_port(wanted)


def test_a_service_that_ends_by_itself_is_no_reason_to_stay(tmp_path):
    """Whoever waits for Ctrl-C is told when the service is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    running = service_process.ServiceApart("http://127.0.0.1:1", ("", ""), process, tmp_path / "serve.log")

    with pytest.raises(StartError, match=r"serve\.log"):
        running.stay()


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, as the demo sees to: a shell has those whom it starts in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_does_not_wait_for_answers():
    """Who interrupts the demo while it asks is back at once, though no answer came: a score may take minutes."""
    answered, interrupted = threading.Event(), []

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            models = b'{"data": [{"id": "silent"}]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(models)))
            self.end_headers()
            self.wfile.write(models)

        def do_POST(self) -> None:
            if not interrupted:
                interrupted.append(True)
                os.kill(os.getpid(), signal.SIGINT)
            answered.wait(PATIENCE_S)

    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        questions = [demo._Question("clinic", f"{number}?", ()) for number in range(40)]
        with pytest.raises(KeyboardInterrupt):
            demo._ask_all(f"http://127.0.0.1:{server.server_port}", "key", questions, ())
        assert not answered.is_set()
        answered.set()
        server.shutdown()


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_stay(tmp_path, monkeypatch):
    """Ctrl-C while a service stays up is its regular end."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        running = service_process.ServiceApart("http://127.0.0.1:1", ("", ""), process, tmp_path / "serve.log")
        wait = process.wait

        def wait_interrupted() -> int:
            threading.Timer(0, os.kill, (os.getpid(), signal.SIGINT)).start()
            return wait()

        with monkeypatch.context() as patch:
            patch.setattr(process, "wait", wait_interrupted)
            running.stay()

        assert process.poll() is None
        service_process._end(process)
        assert process.poll() is not None


WAITS_FOR_RESPONSES = """
import http.server, os, signal, threading, time
told = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _frame: told.append(number))
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", int(os.environ["PROTOKEN_PORT"])), Answers)
threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
while len(told) < 2:
    time.sleep(0.05)
print("cut", flush=True)
"""


def test_ctrl_c_ends_a_service_before_its_responses_do(tmp_path, monkeypatch):
    """`serve` lets responses under way end at one signal and cuts them at a second: who interrupts sends both."""
    (tmp_path / "service.py").write_text(f"#!{sys.executable}\n{WAITS_FOR_RESPONSES}")
    (tmp_path / "service.py").chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "service.py"))
    monkeypatch.setattr(service_process, "_PORTS", {name: free_port() for name in service_process._PORTS})

    with pytest.raises(KeyboardInterrupt), service_process.service_apart({}, tmp_path / "serve.log"):
        raise KeyboardInterrupt

    assert "cut" in (tmp_path / "serve.log").read_text()


def test_a_service_that_does_not_stop_is_killed_with_its_children(monkeypatch):
    """A service that ignores SIGTERM is gone after its time, and so is what it started."""
    monkeypatch.setattr(service_process, "_STOP_TIMEOUT_S", 0.2)
    stubborn = "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    stubborn += "subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen(
        [sys.executable, "-c", stubborn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        process.stdout.readline()
        (child,) = psutil.Process(process.pid).children()

        service_process._end(process)

        assert -signal.SIGKILL == process.wait(PATIENCE_S)
        until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
