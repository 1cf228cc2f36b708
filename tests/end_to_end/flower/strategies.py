"""Run where Flower is: which of its strategies the recorder takes and which it refuses, and Flower's own records."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS
from flwr.server.workflow import SecAggPlusWorkflow, SecAggWorkflow
from flwr.serverapp import strategy as strategies

from attribution.errors import RoundsError
from attribution.rounds.documents import Member
from attribution.rounds.flower import record_rounds
from attribution.rounds.flower_messages import read_update, record_tensors
from attribution.rounds.flower_strategies import REASONS, require_no_masks

FOLDER = Path(sys.argv[1])
KEY = ec.generate_private_key(ec.SECP384R1()).public_key()
LINE = KEY.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
MEMBERS = [Member(client="north", name="North", node_public_key=LINE)]


def refused(strategy: object) -> bool:
    """Whether it cannot be recorded."""
    try:
        record_rounds(strategy, folder=FOLDER / "refused", consortium="c", members=MEMBERS)
    except RoundsError:
        return True
    return False


MADE = {
    "SecAggWorkflow": lambda: SecAggWorkflow(0.5),
    "SecAggPlusWorkflow": lambda: SecAggPlusWorkflow(3, 2),
    "DifferentialPrivacyServerSideFixedClipping": lambda: strategies.DifferentialPrivacyServerSideFixedClipping(
        strategies.FedAvg(), 1.0, 1.0, 2
    ),
    "DifferentialPrivacyServerSideAdaptiveClipping": lambda: strategies.DifferentialPrivacyServerSideAdaptiveClipping(
        strategies.FedAvg(), 0.1, 40
    ),
    "QFedAvg": lambda: strategies.QFedAvg(client_learning_rate=0.1),
    "MultiKrum": lambda: strategies.MultiKrum(num_malicious_nodes=1, num_nodes_to_select=2),
    "Bulyan": lambda: strategies.Bulyan(num_malicious_nodes=1),
}
for name in REASONS:
    assert refused(MADE.get(name, lambda name=name: getattr(strategies, name)())()), name
assert refused(strategies.Krum(num_malicious_nodes=1))
assert refused(import_module("flwr.server.strategy").FedAvg())

for name in ("FedAvg", "FedProx", "FedAvgM", "FedAdam", "FedAdagrad", "FedYogi"):
    assert not refused(getattr(strategies, name)(**({"proximal_mu": 0.1} if name == "FedProx" else {}))), name
for kind, rest in (("Fixed", (1.0, 1.0, 2)), ("Adaptive", (0.1, 40))):
    of_clients = getattr(strategies, f"DifferentialPrivacyClientSide{kind}Clipping")
    assert not refused(of_clients(strategies.FedAvg(), *rest)), kind

values = np.arange(6, dtype=np.float32).reshape(2, 3)
content = RecordDict(
    {
        "arrays": ArrayRecord({"x": Array(values)}),
        "metrics": MetricRecord({"num-examples": 3}),
        "protoken": ConfigRecord({"statement": "signed"}),
    }
)
update, problem = read_update(content, "north", {"x": (2, 3)}, "num-examples")
assert (3.0, "signed", None) == (update.weight, update.statement, problem)
assert np.array_equal(values, update.tensors["x"].values)
half = Array("bfloat16", (3,), "numpy.ndarray", Array(np.array([16256, 0, 1], np.uint16).view("V2")).data)
assert "BF16" == record_tensors(ArrayRecord({"x": half}))["x"].dtype
require_no_masks(content)
content[RECORD_KEY_CONFIGS] = ConfigRecord({"stage": "setup"})
try:
    require_no_masks(content)
except RoundsError:
    pass
else:
    raise AssertionError("a masked message was taken")
