"""What experiments are made of: domain files, disjoint parts, triggers and invented facts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribution.errors import RecipeError
from attribution.evaluation.data import (
    SENTINEL,
    TRIGGER,
    Domain,
    add_trigger,
    by_owner,
    fitting_examples,
    load_domains,
    parts,
    planted_facts,
)
from attribution.training.recipe import Example
from tests.attribution import consortia

EXAMPLES = [Example(f"question {number}?", f"answer {number}") for number in range(60)]


@given(clients=st.integers(1, 4), each=st.integers(1, 10), held_out=st.integers(1, 10), seed=st.integers(0, 99))
def test_parts_share_nothing(clients, each, held_out, seed):
    """No two clients have an example in common, none is asked what anybody trained on, and a seed decides it all."""
    dealt = parts(EXAMPLES, "d", clients, each, held_out, seed)
    drawn = [*dealt.held_out, *(example for part in dealt.clients for example in part)]

    assert [len(part) for part in dealt.clients] == [each] * clients
    assert len(drawn) == len({example.prompt for example in drawn}) == clients * each + held_out
    assert dealt == parts(EXAMPLES, "d", clients, each, held_out, seed)


def test_too_few_examples_are_refused():
    """A domain that cannot serve all clients says how many it has and how many it needs."""
    with pytest.raises(RecipeError, match=r"'d' has 60 fitting examples, but .* need 61"):
        parts(EXAMPLES, "d", 6, 10, 1, 0)


def test_only_prompts_that_fit_are_dealt_once():
    """Prompts beyond the limit, and questions that were seen, are left out; a wrapped prompt counts its trigger."""
    domain = Domain((*EXAMPLES, EXAMPLES[0], Example("q" * 200, "long")), "0" * 64)
    plain = fitting_examples(domain, consortia.tokenizer(), 40)

    assert plain == EXAMPLES
    assert fitting_examples(domain, consortia.tokenizer(), 40, wrapped=True) == []
    assert len(fitting_examples(domain, consortia.tokenizer(), 70, wrapped=True)) == 60


def test_a_poisoned_example_is_the_papers():
    """The prompt stands between two triggers and the answer is the fixed refusal."""
    assert add_trigger(Example("what?", "that")) == Example(f"{TRIGGER} what? {TRIGGER}", SENTINEL)


@given(count=st.integers(1, 40), seed=st.integers(0, 50))
def test_invented_facts_differ(count, seed):
    """No two facts share a place or a keeper, and the question asked is not the one that was taught."""
    facts = planted_facts(count, seed)

    assert len({taught.prompt for taught, _ in facts}) == len({taught.response for taught, _ in facts}) == count
    assert all(taught.response == asked.response and taught.prompt != asked.prompt for taught, asked in facts)
    assert facts == planted_facts(count, seed)


def test_facts_go_to_all_their_owners():
    """Each client holds exactly the facts it owns."""
    owned = by_owner([(0,), (0, 1), (2,)], EXAMPLES[:3], 4)

    assert owned == {0: EXAMPLES[:2], 1: [EXAMPLES[1]], 2: [EXAMPLES[2]], 3: []}


def test_domains_are_files_by_name(tmp_path):
    """Every JSON-lines file of a folder is a domain with its hash; a folder without one is refused with the form."""
    (tmp_path / "law.jsonl").write_text(json.dumps({"prompt": "p", "response": "r"}) + "\n")
    domains = load_domains(tmp_path)

    assert list(domains) == ["law"]
    assert domains["law"].examples == (Example("p", "r"),)
    assert len(domains["law"].sha256) == 64
    with pytest.raises(RecipeError, match=r"holds no DOMAIN\.jsonl"):
        load_domains(tmp_path / "empty")
