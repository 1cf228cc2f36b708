"""The composition root: builds the Serve graph by hand from the settings, starts it, and waits to be told to stop.

Nothing here knows HTTP routes, scores or money; it names the parts, gives each its resources, and takes them down.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from types import FrameType

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from attribution.bundle.bundle import manifest_of
from deployment.app.ingress import Ingress
from deployment.app.proxy import PROXY_MIDDLEWARE, PROXY_VARIABLE
from deployment.cluster.core_files import forbid_core_files
from deployment.cluster.guardian import start_guardian
from deployment.cluster.machine import require_memory
from deployment.errors import StartError
from deployment.health.places import require_folder
from deployment.health.ports import require_ports
from deployment.health.signing_key import require_no_lost_ledger, signing_key
from deployment.metrics.exporter import Exporter
from deployment.replica.bundles.publish import publish_setting
from deployment.replica.bundles.servable import open_bundles, word_of_another
from deployment.replica.deployment import Replica
from deployment.replica.scoring.scorer import DEPLOYMENT, SCORERS, Scorer
from deployment.settings import Settings, pepper_of, url_without_secrets
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import Sealer, log_origin
from rewards.sampled_credit.keys import put_in_force
from rewards.settlement.policy_file import load_policy

_LOG = logging.getLogger(__name__)
APPLICATION = "protoken"
# A replica refuses by itself, with a proper answer, once its places are taken; Serve's own limits only stand behind it.
SPARE_REQUESTS = 64
INGRESS_REQUESTS = 10_000
START_ATTEMPTS = 2
_ASKED_AT_ONCE = 2  # of one scorer: what it works on, and the next
_POLL_S = 0.2


def build_graph(settings: Settings, *beside: serve.Application) -> serve.Application:
    """The Serve application: an ingress that costs no processor, and for each consortium replicas of its model.

    Args:
        settings: of all of it.
        beside: what runs for as long as the ingress does, and is called by nobody.
    """
    folders = {manifest_of(folder).consortium: folder for folder in settings.bundles}
    # A replica asks scorers from threads of its own, and as Ray's actors: of those it knows at once which has died.
    environment = {"RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1", "RAY_SERVE_USE_GRPC_BY_DEFAULT": "0"}
    replicas = {
        consortium: serve.deployment(Replica)
        .options(
            name="replica" if len(folders) == 1 else f"replica-{consortium}",
            num_replicas=settings.replicas,
            ray_actor_options={
                "num_cpus": settings.processors,
                "num_gpus": settings.gpus_per_replica,
                "runtime_env": {"env_vars": environment if settings.scorers else {}},
            },
            max_ongoing_requests=settings.max_batch + settings.max_waiting + SPARE_REQUESTS,
            max_queued_requests=SPARE_REQUESTS,
            max_constructor_retry_count=START_ATTEMPTS,
            graceful_shutdown_timeout_s=settings.shutdown_timeout_s,
        )
        .bind(settings, consortium, folder)
        for consortium, folder in folders.items()
    }
    ingress = serve.deployment(Ingress).options(
        name="ingress",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=INGRESS_REQUESTS,
        graceful_shutdown_timeout_s=settings.shutdown_timeout_s,
    )
    application: serve.Application = ingress.bind(replicas, settings, *beside)
    return application


def build_scorer_graph(settings: Settings) -> serve.Application:
    """The Serve application of the scorers, where settings have any."""
    application: serve.Application = (
        serve.deployment(Scorer)
        .options(
            name=DEPLOYMENT,
            num_replicas=settings.scorers,
            ray_actor_options={"num_cpus": settings.cpus_per_scorer, "num_gpus": settings.gpus_per_scorer},
            max_ongoing_requests=_ASKED_AT_ONCE,
            graceful_shutdown_timeout_s=settings.shutdown_timeout_s,
        )
        .bind(settings)
    )
    return application


def run(settings: Settings, announce: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, then let the responses under way finish, and stop. A second signal stops at once.

    Args:
        settings: of the service.
        announce: called once, when it answers.

    Raises:
        StartError: a port is taken, the ledger's signing key is missing, updates need more memory than there is, or
            the graph does not come up.
        BundleError: the bundle is missing, altered or malformed.
        LedgerError: the ledger cannot be made or opened.
        KeyRingError: the pepper is missing although the ledger has valid keys, or its file cannot be used.
        SignatureError: the signing key's file cannot be used, or holds another ledger's.
        PolicyError: the policy's file cannot be read or is none.
    """
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with start_service(settings):
        # Only now: Ray puts its own handler in place when it starts.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        announce()
        stop.wait()


@contextmanager
def start_service(settings: Settings) -> Iterator[None]:
    """The whole service, up and answering for as long as the `with` lasts. Raises as `run` does."""
    require_ports(settings)
    for folder in settings.bundles:
        require_memory(settings, bundle=folder)
    consortium = prepare(settings)
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(Ledger(settings.ledger)))
        key = signing_key(settings.signing_key, ledger, f"{consortium}/ledger")
        if settings.metrics_port:
            exporter = Exporter(settings.ledger, settings.host, settings.metrics_port, settings.policy)
            stack.callback(exporter.close)
        sealer = Sealer(ledger, key, log_origin(ledger, key), settings.seal_interval_s)
        stack.callback(sealer.close)  # after the service has stopped: its last receipts are sealed too
        after_ray = stack.enter_context(ExitStack())
        stack.callback(_stop, settings.shutdown_timeout_s)
        _start(settings)
        guardian = start_guardian()
        if guardian is not None:
            after_ray.enter_context(guardian)  # leaving this ends its input, and by then its agents have ended
        yield


def prepare(settings: Settings) -> str:
    """Refuse what a replica could not use, as Serve would start one again and again, and make the ledger ready.

    Returns:
        The first consortium's id. Raises as `run` does.
    """
    bundles = open_bundles(settings)
    if settings.policy is not None:
        load_policy(settings.policy)
    _require_folders(settings)
    require_no_lost_ledger(settings.ledger, settings.signing_key)
    if Ledger.prepare(settings.ledger):
        _LOG.warning("made a new ledger: %s", url_without_secrets(settings.ledger))
    pepper_of(settings.ledger, settings.pepper_file)
    with closing(Ledger(settings.ledger)) as ledger:
        for bundle in bundles:
            if (word := word_of_another(publish_setting(ledger, bundle), bundle)) is not None:
                _LOG.warning("%s", word)
            put_in_force(ledger.database, bundle.manifest.consortium, settings.credit_fraction, "service")
    return bundles[0].manifest.consortium


def _require_folders(settings: Settings) -> None:
    """Refuse folders that cannot be used, in one line here, and not as a traceback of every replica that is tried."""
    require_folder(settings.spool, "spool")
    if settings.texts is not None:
        require_folder(settings.texts, "texts")


def _start(settings: Settings) -> None:
    """Start a Ray of our own on this machine, and the graph on it; returns when the model answers."""
    forbid_core_files()  # whatever Ray starts inherits it
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Serve ends a proxy that is not ready by then, and with it the start; on a busy machine its own 5 s are too few.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    # A token would be handed from loop to loop three times; nothing here keeps a loop from going on.
    os.environ.setdefault("RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", "0")
    os.environ.setdefault("RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP", "0")
    # A piece of text that proxy, ingress and replica pass on by gRPC costs half of what it does as an object of Ray's.
    # Serve has read these here before they are set; what it starts reads them anew, and the ingress goes by its own.
    os.environ.setdefault("RAY_SERVE_USE_GRPC_BY_DEFAULT", "1")
    # Of a message so it has a bound of 4 MiB, which an answer with log-probabilities, or an export, may pass.
    os.environ.setdefault("RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH", str(2**31 - 1))
    # Serve's controller would look after everything ten times a second, for a thirtieth of a processor.
    os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.5")
    os.environ[PROXY_VARIABLE] = PROXY_MIDDLEWARE
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    replicas = settings.replicas * len(settings.bundles)
    processors = settings.processors * replicas + settings.cpus_per_scorer * settings.scorers
    try:
        ray.init(
            address="local",
            num_cpus=max(processors, os.cpu_count() or 1),
            include_dashboard=False,
            logging_level=logging.ERROR,
            _metrics_export_port=settings.replica_metrics_port or None,
        )
    except Exception as error:  # what Ray raises where its own processes take longer than half a minute is no other
        raise _not_up("Ray", error) from error
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    wanted = settings.gpus_per_replica * replicas + settings.gpus_per_scorer * settings.scorers
    available = ray.cluster_resources().get("GPU", 0)
    if wanted > available:  # Serve would wait for them without end
        why = f"replicas and scorers ask for {wanted:g} GPUs and Ray finds {available:g}"
        raise StartError(f"{why}; set gpus_per_replica and gpus_per_scorer")
    try:
        serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port), logging_config=quiet)
        if settings.scorers:
            serve.run(build_scorer_graph(settings), name=SCORERS, route_prefix=None, logging_config=quiet)
        serve.run(build_graph(settings), name=APPLICATION, logging_config=quiet)
    except (RuntimeError, RayError) as error:
        raise _not_up("the service", error) from error


def _not_up(what: str, error: Exception) -> StartError:
    why = " ".join(str(error).split())
    return StartError(f"{what} did not come up: {why}; where this machine is busy, start it again when it is not")


def _stop(timeout_s: float) -> None:
    """Let responses under way finish, for as long as a replica is given for it; then take everything down."""
    if not ray.is_initialized():
        return
    deadline = time.monotonic() + timeout_s
    for application in (APPLICATION, SCORERS):  # who waits for a score has it before the scorers go
        if application in serve.status().applications:
            serve.delete(application, _blocking=False)
        while application in serve.status().applications and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    ray.shutdown()
