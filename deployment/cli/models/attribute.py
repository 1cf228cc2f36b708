"""`protoken attribute`: one prompt, its answer, and who taught each token; needs no service."""

from contextlib import nullcontext
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from attribution.attribute import attribute
from attribution.decoding.decode import Batch
from attribution.model import FederatedModel
from attribution.records import AttributedResponse, Sampling
from attribution.scoring.credit_preset import Effort
from deployment.cli.heat_map import heat_map, legend, tint
from deployment.cli.number_format import percent
from deployment.cli.options import AS_SET, BundleFolder, Config, Json
from deployment.cli.output import console, print_json, say
from deployment.cli.tables import print_table


class Preset(StrEnum):
    """The presets of design 5, as the command line spells them."""

    PAPER = "paper"
    CREDIT = "credit"


def attribute_prompt(
    prompt: Annotated[str, typer.Option("--prompt", help="What to ask.")],
    preset: Annotated[
        Preset, typer.Option("--preset", help="credit is for money; paper reproduces ProToken.")
    ] = Preset.CREDIT,
    nodes: Annotated[
        int | None,
        typer.Option(
            "--nodes",
            min=1,
            max=64,
            help="Points between base and global model, for credit; as many as it takes unless given.",
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="Tokens to generate at most.")] = 64,
    temperature: Annotated[float, typer.Option("--temperature", help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p", help="Sample from the smallest set of this probability.")] = 1.0,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the sampling.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Give the prompt as it is, without the model's chat template.")
    ] = False,
    bundle: BundleFolder = AS_SET,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Generate an answer and trace each token to the client that taught it."""
    model = FederatedModel.load(bundle)
    if raw or model.tokenizer.chat_template is None:
        prompt_ids = model.encode_text(prompt)
    else:
        prompt_ids = model.encode_chat([{"role": "user", "content": prompt}])
    batch = Batch(model)
    batch.join("prompt", prompt_ids, Sampling(max_new_tokens, temperature, top_p, seed))
    with nullcontext() if as_json else console.status("generating…"):
        while len(batch):
            batch.step()
        generation, effort = batch.leave("prompt"), Effort(nodes=nodes)
        response = attribute(model, generation, method=preset.value, token_level=True, effort=effort)
    if as_json:
        print_json(asdict(response))
    else:
        _show(response)


def _show(response: AttributedResponse) -> None:
    assert response.scores is not None
    colours = tint(list(response.scores))
    console.print(heat_map(response.tokens, response.scores, response.base_shares, colours))
    console.print(legend(colours))
    rows = [
        (client, f"{response.response_scores.get(client, 0.0):+.3f}", percent(share))
        for client, share in response.shares.items()
    ]
    rows.append(("commons", "", percent(response.base_share)))
    print_table(f"preset {response.method}", ("client", "score", "share"), rows)
    if response.gain is not None and response.completeness_error is not None:
        say(f"gain over the base model {response.gain:+.3f} nats, completeness error {response.completeness_error:.3g}")
