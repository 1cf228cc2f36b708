"""A member's side."""

from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from deployment.members.flower import sign_updates
from fedqa.task import load, put_state, state, train

app = ClientApp(mods=[sign_updates()])


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Train from the global adapter on the node's own data."""
    folder = str(context.run_config["model"])
    model = load(folder)
    put_state(model, message.content["arrays"].to_torch_state_dict())
    number = int(message.content["config"]["server-round"])
    data = Path(str(context.node_config["data"]))
    examples, loss = train(model, folder, data, int(context.run_config["steps"]), number - 1)
    content = RecordDict(
        {
            "arrays": ArrayRecord(state(model)),
            "metrics": MetricRecord({"num-examples": examples, "train_loss": loss}),
        }
    )
    return Message(content=content, reply_to=message)
