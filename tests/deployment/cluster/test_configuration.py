"""`configs/cluster` and `configs/kubernetes` say what the code knows: Serve's file, the manifest, the image.

No Kubernetes and no container engine is at hand: what is held here are the facts that they have in common.
"""

import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from deployment.app.cluster import AUTH_VARIABLE, cluster_settings, longest_drain_s
from deployment.app.proxy import PROXY_MIDDLEWARE, PROXY_VARIABLE
from deployment.settings import Settings

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "configs" / "cluster"
SERVE = yaml.safe_load((FOLDER / "serve.yaml").read_text(encoding="utf-8"))
OBJECTS = list(yaml.safe_load_all((ROOT / "configs" / "kubernetes" / "rayservice.yaml").read_text(encoding="utf-8")))
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line
)
ENVIRONMENT = {"PROTOKEN_LEDGER": "postgresql://service@host/books"}


def of_kind(kind: str, name: str) -> Any:
    """The one object of the manifest with that kind and name."""
    (found,) = (each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


SERVICE = of_kind("RayService", "protoken")["spec"]
CLUSTER = SERVICE["rayClusterConfig"]
PODS = {
    "head": CLUSTER["headGroupSpec"]["template"],
    "worker": CLUSTER["workerGroupSpecs"][0]["template"],
}


def container(pod: str) -> Any:
    (only,) = PODS[pod]["spec"]["containers"]
    return only


def settings() -> Settings:
    return cluster_settings(SERVE["applications"][0]["args"], ENVIRONMENT)


def test_serve_takes_the_file_and_every_word_of_it():
    """As Ray's own schema reads it, which passes over words that it does not know; here there is none."""
    read = ServeDeploySchema.model_validate(SERVE)
    told = read.model_dump(exclude_unset=True, mode="json")

    assert SERVE.keys() == told.keys()
    assert [{*each} for each in SERVE["applications"]] == [{*each} for each in told["applications"]]
    deployments = SERVE["applications"][0]["deployments"]
    assert [{*each} for each in deployments] == [{*each} for each in told["applications"][0]["deployments"]]


def test_the_file_names_what_there_is():
    """A function that builds, settings that are good on a cluster, and the three deployments that it binds."""
    (application,) = SERVE["applications"]
    module, name = application["import_path"].split(":")

    assert callable(getattr(import_module(module), name))
    assert ["ingress", "replica", "sealer"] == [each["name"] for each in application["deployments"]]
    assert settings().spool == Path(application["args"]["spool"])


def test_replicas_are_added_before_they_are_full():
    """More are started while each has a place left, and never fewer than two run."""
    (replica,) = (each for each in SERVE["applications"][0]["deployments"] if each["name"] == "replica")
    scaling = replica["autoscaling_config"]

    assert 2 <= scaling["min_replicas"] < scaling["max_replicas"]
    assert scaling["target_ongoing_requests"] < settings().max_batch


def test_nothing_is_stopped_before_its_streams_end():
    """The longest drain, the patience of a replica, of Ray's node, of the pod and of an old cluster: each is longer."""
    variables = {each["name"]: each.get("value") for each in container("worker")["env"]}
    patience = [
        longest_drain_s(settings()),
        settings().shutdown_timeout_s,
        float(variables["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]),
        PODS["worker"]["spec"]["terminationGracePeriodSeconds"],
        SERVICE["rayClusterDeletionDelaySeconds"],
    ]

    assert sorted(set(patience)) == patience


def test_the_manifest_deploys_the_same_file():
    """What KubeRay gives to Serve is `serve.yaml`."""
    assert SERVE == yaml.safe_load(SERVICE["serveConfigV2"])


def test_the_manifest_has_what_each_kind_must_have():
    """The versions of the interfaces, and the fields that a RayService cannot be without."""
    versions = {
        "PersistentVolumeClaim": "v1",
        "RayService": "ray.io/v1",
        "NetworkPolicy": "networking.k8s.io/v1",
        "Deployment": "apps/v1",
        "PodMonitor": "monitoring.coreos.com/v1",
    }

    assert versions == {each["kind"]: each["apiVersion"] for each in OBJECTS}
    assert PINNED["ray"] == CLUSTER["rayVersion"]
    assert {"mode": "token"} == CLUSTER["authOptions"]
    assert SERVICE["excludeHeadPodFromServeSvc"]
    for group in (CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]):
        assert {"rayStartParams", "template"} <= group.keys()
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    (workers,) = CLUSTER["workerGroupSpecs"]
    scaling = yaml.safe_load(SERVICE["serveConfigV2"])["applications"][0]["deployments"][1]["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (workers["minReplicas"], workers["maxReplicas"])
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]


@pytest.mark.parametrize("pod", PODS)
def test_every_machine_has_what_the_settings_name(pod: str):
    """Bundle, secrets and spool are mounted, each where the settings say, and the environment is the one asked for."""
    of_pod, paths = container(pod), {each["mountPath"] for each in container(pod)["volumeMounts"]}
    variables = {each["name"]: each for each in of_pod["env"]}
    volumes = {each["name"] for each in PODS[pod]["spec"]["volumes"]}

    for path in (settings().bundle, settings().spool, settings().pepper_file, settings().signing_key):
        assert any(Path(mount) in (path, *path.parents) for mount in paths), path
    assert volumes == {each["name"] for each in of_pod["volumeMounts"]}
    assert PROXY_MIDDLEWARE == variables[PROXY_VARIABLE]["value"]
    for name in variables:
        assert not name.startswith("PROTOKEN_") or name.removeprefix("PROTOKEN_").lower() in Settings.model_fields
    assert {"url", "replica-url"} == {
        each["valueFrom"]["secretKeyRef"]["key"] for each in variables.values() if "valueFrom" in each
    }
    assert not settings().bundle.is_relative_to("/srv/protoken/state")


@pytest.mark.parametrize("pod", PODS)
def test_the_next_round_has_room_beside_the_first(pod: str):
    """What is mounted holds bundles, and is none: a round has a folder of its own, in the same volume."""
    mounts = {each["name"]: Path(each["mountPath"]) for each in container(pod)["volumeMounts"]}

    assert settings().bundle.parent == mounts["bundle"]


def test_volumes_are_those_that_are_claimed():
    """Each claim of a pod is one of the manifest's, and what is written from several machines may be."""
    claims = {each["metadata"]["name"]: each["spec"] for each in OBJECTS if each["kind"] == "PersistentVolumeClaim"}
    named = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in PODS.values()
        for volume in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }

    assert claims.keys() == named
    assert {("ReadWriteMany",)} == {tuple(each["accessModes"]) for each in claims.values()}


def test_ports_and_probes_are_those_of_the_service():
    """HTTP where Serve's proxies listen, readiness by `/health`, series where the monitors look for them."""
    ports = {each["name"]: each["containerPort"] for each in container("worker")["ports"]}
    probe = container("worker")["readinessProbe"]["httpGet"]
    (exporter,) = of_kind("Deployment", "protoken-exporter")["spec"]["template"]["spec"]["containers"]

    assert SERVE["http_options"]["port"] == ports["serve"]
    assert ("/health", "serve") == (probe["path"], probe["port"])
    assert Settings.model_fields["metrics_port"].default == exporter["ports"][0]["containerPort"]
    assert ["protoken", "exporter"] == exporter["command"][:2]
    assert str(exporter["ports"][0]["containerPort"]) in exporter["command"]
    assert "exporter-url" == exporter["env"][0]["valueFrom"]["secretKeyRef"]["key"]
    jobs = {each["job_name"] for each in _prometheus()["scrape_configs"]}
    monitors = [each for each in OBJECTS if each["kind"] == "PodMonitor"]
    assert jobs == {each["metadata"]["name"] for each in monitors}
    for monitor in monitors:
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert "metrics" == endpoint["port"]
        assert [{"targetLabel": "job", "replacement": monitor["metadata"]["name"]}] == endpoint["relabelings"]


def test_what_is_selected_is_there():
    """Each policy and monitor selects the labels of a pod of the manifest."""
    labels = [pod["metadata"]["labels"] for pod in PODS.values()]
    labels.append(of_kind("Deployment", "protoken-exporter")["spec"]["template"]["metadata"]["labels"])
    selectors = [each["spec"].get("podSelector") or each["spec"].get("selector") for each in OBJECTS]

    assert len([each for each in selectors if each]) == 5
    for selector in filter(None, selectors):
        assert any(selector["matchLabels"].items() <= each.items() for each in labels)


def test_nothing_in_the_manifest_runs_as_root_or_holds_a_secret():
    """Users are the image's; the ledger's URLs, pepper and key come from secrets that are made apart."""
    specs = [pod["spec"] for pod in PODS.values()]
    specs.append(of_kind("Deployment", "protoken-exporter")["spec"]["template"]["spec"])

    assert all(spec["securityContext"]["runAsNonRoot"] for spec in specs)
    assert {1000} == {spec["securityContext"]["runAsUser"] for spec in specs}
    assert "Secret" not in {each["kind"] for each in OBJECTS}


def test_the_image_has_what_it_is_started_with():
    """Extras of the project, the pinned versions, the user of the manifest, and the variables of a cluster."""
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, flags=re.MULTILINE) for name in line.split()}
    (extras,) = re.findall(r"pip install .*'\.\[([a-z,]+)\]'", DOCKERFILE)
    (version,) = re.findall(r"^FROM python:(\d+\.\d+)-", DOCKERFILE, flags=re.MULTILINE)
    variables = dict(re.findall(r"^(?:ENV |    )([A-Z_]+)=(\S+)(?: \\)?$", DOCKERFILE, flags=re.MULTILINE))

    assert {"serve", "postgresql"} == set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    assert "--constraint constraints.txt" in DOCKERFILE
    assert PROJECT["requires-python"] == f">={version}"
    assert [] == [name for name in copied if not (ROOT / name).exists()]
    assert {"attribution", "rewards", "deployment", "configs", "pyproject.toml", "constraints.txt"} <= copied
    assert ["protoken"] == re.findall(r"^USER (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    assert "--uid 1000 protoken" in DOCKERFILE
    assert ("token", PROXY_MIDDLEWARE) == (variables[AUTH_VARIABLE], variables[PROXY_VARIABLE])
    assert {f"protoken-cluster:{PROJECT['version']}"} == {
        each["image"].rpartition("/")[2] for pod in PODS for each in [container(pod)]
    }


def _prometheus() -> Any:
    return yaml.safe_load((ROOT / "configs" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
