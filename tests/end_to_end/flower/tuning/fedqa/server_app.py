"""The aggregator's side."""

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from attribution.rounds.flower import record_rounds
from deployment.members.flower import require_signature
from fedqa.task import LORA, load, state

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Average the members' adapters, round by round."""
    config = context.run_config
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    strategy = record_rounds(
        strategy,
        folder=config["folder"],
        consortium="fedqa",
        members=config["members"],
        adapter=LORA.to_dict(),
        admit=require_signature,
    )
    arrays = ArrayRecord(state(load(str(config["model"]))))
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(config["rounds"]), timeout=600)
