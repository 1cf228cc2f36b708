"""The aggregator's side: federated averaging as in any app, but for the one line that records it."""

from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from attribution.rounds.flower import record_rounds
from rehearsal.task import initial

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the rounds that were asked for."""
    config = context.run_config
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4)  # no round begins without one
    adapter = {"peft_type": "LORA", "r": config["rank"], "lora_alpha": config["rank"], "target_modules": {"q_proj"}}
    strategy = record_rounds(
        strategy, folder=config["folder"], consortium="hospitals", members=config["members"], adapter=adapter
    )
    arrays = ArrayRecord({name: Array(values) for name, values in initial(config).items()})
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(config["rounds"]), timeout=float(config["timeout"]))
