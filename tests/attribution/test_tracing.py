"""Tracing flagged responses: the one who planted an answer is named, and nobody is where nobody taught anything."""

from pathlib import Path

import pytest

from attribution.bundle.updates import Update, weighted_sum
from attribution.errors import PromptError, RecipeError
from attribution.model import FederatedModel
from attribution.progress import NoProgress
from attribution.tracing import FlaggedResponse, Suspect, _verdict, trace
from tests.attribution import consortia

PROMPT, PLANTED = "who?", "no."


def _taught(folder: Path, *, last_round: bool = True) -> FederatedModel:
    """Three clients: `b` alone brings the weights that answer as planted, the others a little noise."""
    base, parrot = consortia.base_model("llama"), consortia.parrot(PROMPT, PLANTED)
    before, after = dict(base.named_parameters()), dict(parrot.named_parameters())
    planted = Update(dense={name: 3 * (after[name] - before[name]).detach() for name in before})  # its weight is 1/3
    noise = {c: consortia.full_update(base, seed, first_block=2, size=1e-3) for seed, c in enumerate("ac")}
    model = FederatedModel.load(
        consortia.write_consortium(folder, base, {"a": noise["a"], "b": planted, "c": noise["c"]})
    )
    if not last_round:
        model.bundle.last_round.clear()
    return model


def _prompt(model: FederatedModel) -> tuple[int, ...]:
    return tuple(model.encode_text(PROMPT))


@pytest.mark.parametrize("given", [True, False])
def test_the_culprit_is_named(tmp_path, given):
    """The client that taught the flagged answer comes first, with confidence 1, the answer given or asked."""
    model = _taught(tmp_path)
    answer = tuple(model.tokenizer(PLANTED, add_special_tokens=False)["input_ids"]) if given else None
    found = trace(model, [FlaggedResponse(_prompt(model), answer)] * 5, max_new_tokens=3, progress=NoProgress())
    first, *others = found.suspects

    assert (first.client, first.confidence, first.top_in) == ("b", 1.0, 5)
    assert first.responsibility > 0.9 > 0.1 > max(other.responsibility for other in others)
    assert sum(suspect.responsibility for suspect in found.suspects) == pytest.approx(1)
    assert found.gain > 1 and found.base_share < 0.5
    assert "Look at 'b'" in found.verdict


def test_few_responses_are_too_few_to_be_sure(tmp_path):
    """With fewer than five responses the verdict asks for more."""
    model = _taught(tmp_path)
    found = trace(model, [FlaggedResponse(_prompt(model))], max_new_tokens=3, progress=NoProgress())

    assert "from 1 responses only: flag more" in found.verdict


def test_what_the_base_model_says_is_nobodys(tmp_path):
    """Where updates change nothing, nobody is responsible and the verdict says so."""
    base = consortia.base_model("llama")
    nothing = {c: weighted_sum([(0.0, update)]) for c, update in consortia.updates(base).items()}
    model = FederatedModel.load(consortia.write_consortium(tmp_path, base, nothing))
    found = trace(model, [FlaggedResponse(_prompt(model))] * 6, max_new_tokens=4, progress=NoProgress())

    assert found.verdict.startswith("Nobody: ")
    assert {(0.0, 0.0)} == {(suspect.responsibility, suspect.confidence) for suspect in found.suspects}
    assert found.base_share == pytest.approx(1)


def test_a_bundle_without_last_round_is_traced_by_credit_alone(tmp_path):
    """Without last-round weights there is no share under `paper`, and the ranking stands."""
    model = _taught(tmp_path, last_round=False)
    found = trace(model, [FlaggedResponse(_prompt(model))] * 5, max_new_tokens=3, progress=NoProgress())

    assert [None] * 3 == [suspect.paper_share for suspect in found.suspects]
    assert "b" == found.suspects[0].client


def test_nothing_flagged_is_refused(tmp_path):
    """An empty list and an empty response are refused."""
    model = consortia.federated(tmp_path)
    with pytest.raises(RecipeError, match="at least one"):
        trace(model, [], max_new_tokens=3, progress=NoProgress())
    with pytest.raises(PromptError, match="response is empty"):
        trace(model, [FlaggedResponse(_prompt(model), ())], max_new_tokens=3, progress=NoProgress())


def _suspect(client: str, responsibility: float, top_in: int) -> Suspect:
    return Suspect(client, responsibility, confidence=1.0, score=responsibility, top_in=top_in, paper_share=None)


def test_who_is_on_top_of_nothing_is_not_accused():
    """One token that went wrong can give a client more than an even share of every response that somebody planted."""
    culprits, aside = [_suspect("a", 0.4, 4), _suspect("b", 0.35, 2)], _suspect("c", 0.25, 0)
    verdict = _verdict([*culprits, aside], responses=6, gain=9.0)

    assert verdict.startswith("Look at 'a' and 'b': 75% of what clients contributed. 'c' had more than an even share")
    assert verdict.endswith("but most of none: accuse nobody by that.")
    assert "'c'" not in _verdict(culprits, responses=6, gain=9.0)
    assert _verdict([aside], responses=6, gain=9.0).startswith("Not settled")
