"""A member's side; the node says whose data it has, which is nobody's business but its own."""

import time
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from rehearsal.task import train

app = ClientApp()


@app.train()
def fit(message: Message, context: Context) -> Message:
    """Train from the global model and send what came of it, with a statement."""
    config = context.node_config
    number = int(message.content.config_records["config"]["server-round"])
    if number == config.get("hangs-in"):
        Path(str(config["marker"])).touch()
        time.sleep(120)  # until it is killed
    if number == config.get("fails-in"):
        raise RuntimeError("the data cannot be read")
    factors = {name: array.numpy().copy() for name, array in message.content.array_records["arrays"].items()}
    loss = train(factors, str(config["member"]), context.run_config)
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(values) for name, values in factors.items()}),
            "metrics": MetricRecord({"num-examples": int(config["examples"]), "train_loss": loss}),
            "protoken": ConfigRecord({"statement": f'{{"client": "{config["member"]}", "round": {number}}}'}),
        }
    )
    return Message(content=content, reply_to=message)
