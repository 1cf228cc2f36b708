"""A SuperLink and its SuperNodes on loopback, under TLS and with keys; whatever is started is ended."""

import datetime as dt
import ipaddress
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.end_to_end.service import free_port
from tests.waiting import PATIENCE_S, until

APP = Path(__file__).parent / "app"
_STOP_S = 20
# Nothing is asked of anybody outside: neither for a newer Flower nor to count its uses.
_QUIET = {"FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_TELEMETRY_ENABLED": "0", "NO_COLOR": "1", "COLUMNS": "400"}


class FlowerFederation:
    """A SuperLink, and the SuperNodes that were started.

    Attributes:
        folder: where keys, logs and results are.
        nodes: the process of each SuperNode by member.
        numbers: the id that the SuperLink gave it.
    """

    def __init__(self, folder: Path, programs: Path, stack: ExitStack) -> None:
        self.folder, self.nodes, self.numbers = folder, {}, {}
        self._programs, self._stack, self._port = programs, stack, free_port()
        self._variables = _QUIET | {
            "PATH": f"{programs}:/usr/bin:/bin",
            "HOME": str(folder),
            "FLWR_HOME": str(folder / "flwr"),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
        }
        _write_certificates(folder)
        (folder / "flwr").mkdir()
        (folder / "flwr" / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{self._port}"\n'
            f'root-certificates = "{folder}/ca.crt"\n'
        )

    def start_superlink(self) -> None:
        """Start it, and wait until it answers."""
        tls = {"--ssl-ca-certfile": "ca.crt", "--ssl-certfile": "server.pem", "--ssl-keyfile": "server.key"}
        self._start(
            "flower-superlink",
            *(word for option, name in tls.items() for word in (option, str(self.folder / name))),
            "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
            *("--host", "127.0.0.1", "--port", str(self._port)),
        )
        until(lambda: "nodes" in self.ask("supernode", "list"), what=lambda: f"the SuperLink's nodes\n{self.logs()}")

    def add_node(self, member: str, config: Mapping[str, Any]) -> str:
        """Register a member's SuperNode by its public key and start it; the line of the key."""
        key = ec.generate_private_key(ec.SECP384R1())
        private, public = self.folder / f"{member}.key", self.folder / f"{member}.pub"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
        )
        private.chmod(0o600)
        line = (
            key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
        )
        public.write_text(line + f" node@{member}\n")
        registered = self.ask("supernode", "register", str(public))
        assert "node-id" in registered, f"{registered}\n{self.logs()}"
        self.numbers[member] = str(registered["node-id"])
        words = [f"{name}={json.dumps(value)}" for name, value in ({"member": member} | dict(config)).items()]
        self.nodes[member] = self._start(
            "flower-supernode",
            *("--superlink", f"127.0.0.1:{self._port}", "--root-certificates", str(self.folder / "ca.crt")),
            *("--auth-supernode-private-key", str(private), "--host", "127.0.0.1", "--port", str(free_port())),
            *("--node-config", " ".join(words)),
            log=f"{member}.log",
        )
        return line

    def ask(self, *words: str) -> dict[str, Any]:
        """The document that a command of `flwr` answers with; a failure stands in it, while the exit status is 0."""
        command = [str(self._programs / "flwr"), *words, "--format", "json"]
        answered = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env=self._variables,
            timeout=PATIENCE_S,
            cwd=self.folder,
        )
        begin = answered.stdout.find("{")
        assert begin >= 0, answered.stdout
        document: dict[str, Any] = json.loads(answered.stdout[begin:])
        return document

    def start_run(self, config: Mapping[str, Any], project: Path = APP) -> "subprocess.Popen[bytes]":
        """Run an app; what it prints goes to `run.log`."""
        app = self.folder / "app"
        shutil.copytree(project, app, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        words = " ".join(f"{name}={json.dumps(value)}" for name, value in config.items())
        return self._start("flwr", "run", str(app), "--stream", "--run-config", words, log="run.log")

    def kill(self, member: str) -> None:
        """Kill a SuperNode and whatever it has started."""
        os.killpg(self.nodes[member].pid, signal.SIGKILL)
        self.nodes[member].wait()

    def logs(self) -> str:
        """What all have printed."""
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in self.folder.glob("*.log"))

    def _start(self, program: str, *words: str, log: str = "superlink.log") -> "subprocess.Popen[bytes]":
        with (self.folder / log).open("ab") as output:
            process = subprocess.Popen(
                [str(self._programs / program), *words],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=self._variables,
                cwd=self.folder,
                start_new_session=True,
            )
        self._stack.callback(_end, process)
        return process


@contextmanager
def flower_federation(folder: Path, programs: Path) -> Iterator[FlowerFederation]:
    """A SuperLink until the end of the `with`, and whatever is started with it."""
    with ExitStack() as stack:
        federation = FlowerFederation(folder, programs, stack)
        federation.start_superlink()
        yield federation


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end, and then whatever it has started."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _write_certificates(folder: Path) -> None:
    """An authority of a day, and its certificate for this machine."""
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "server")}
    names = {name: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in keys}
    now = dt.datetime.now(dt.UTC)
    addresses = x509.SubjectAlternativeName(
        [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    )
    for name, key in keys.items():
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[name])
            .issuer_name(names["ca"])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys["ca"].public_key()), critical=False)
        )
        if name == "server":
            builder = builder.add_extension(addresses, critical=False)
        certificate = builder.sign(keys["ca"], hashes.SHA256())
        path = folder / ("ca.crt" if name == "ca" else "server.pem")
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        keys["server"].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    (folder / "server.key").chmod(0o600)
