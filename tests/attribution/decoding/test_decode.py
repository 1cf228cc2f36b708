"""Decoding gives what the model alone would say, whoever else is in the batch, and shows it piece by piece."""

import math

import pytest
import torch
from transformers import DynamicCache

from attribution.decoding.decode import Batch
from attribution.errors import PromptError
from attribution.model import FederatedModel
from attribution.records import Sampling
from tests.attribution import consortia

SAYING = "Ja: café ✓ 🎉, one two three."  # characters of one, two, three and four bytes, and so as many tokens
ASKED = "say it: "


@pytest.fixture(scope="module", params=consortia.FAMILIES)
def any_family(request, tmp_path_factory) -> FederatedModel:
    """A consortium of each family in turn."""
    return consortia.federated(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> FederatedModel:
    """A consortium over a random Llama, which babbles."""
    return consortia.federated(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def parrot(tmp_path_factory) -> FederatedModel:
    """A consortium that answers ASKED with SAYING and ends there."""
    model = consortia.parrot(ASKED, SAYING)
    update = consortia.lora_update(model, 0, first_block=2, size=1e-5)
    return FederatedModel.load(consortia.write_consortium(tmp_path_factory.mktemp("parrot"), model, {"a": update}))


def _say(model: FederatedModel, prompt: str = ASKED, **settings):
    """One response decoded alone, with every step on the way."""
    batch = Batch(model)
    batch.join("r", model.encode_text(prompt), Sampling(**({"max_new_tokens": 60} | settings)))
    steps = []
    while len(batch):
        steps += batch.step()
    return batch.leave("r"), steps


class TestSameAsAlone:
    """What is decoded depends on the prompt and the sampling, not on the company or the cache."""

    @pytest.mark.parametrize("prompt", ["x", "who owns this?", "a prompt longer than any window that slides"])
    def test_greedy_tokens_are_those_of_generate(self, any_family, prompt):
        """A greedy response equals transformers' own `generate`, token for token."""
        ids = any_family.encode_text(prompt)
        found = consortia.decode(any_family, prompt, Sampling(max_new_tokens=16))
        expected = any_family.network.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)

        assert expected[0, len(ids) :].tolist() == list(found.token_ids)

    def test_log_probabilities_are_the_model_s(self, any_family):
        """Each token's log-probability is that of one plain forward pass, at the temperature used."""
        for temperature in (0.0, 0.7):
            found = consortia.decode(any_family, "who?", Sampling(12, temperature, seed=5))
            ids = torch.tensor([[*found.prompt_token_ids, *found.token_ids]])
            with torch.no_grad():
                logits = any_family.network(ids).logits[0, len(found.prompt_token_ids) - 1 : -1]
            log_p = (logits.double() / (temperature or 1.0)).log_softmax(-1)

            expected = log_p.gather(-1, torch.tensor(found.token_ids).unsqueeze(-1)).squeeze(-1)
            torch.testing.assert_close(expected, torch.tensor(found.logprobs).double(), rtol=0, atol=1e-4)

    def test_rows_that_come_and_go_are_as_if_alone(self, any_family):
        """Rows that join and leave at different steps get the tokens, log-probabilities and tensors they get alone."""
        prompts = {
            "long": "a rather long question, then",
            "short": "b",
            "late": "later on",
            "last": "the last one of all",
        }
        samplings = {
            "long": Sampling(9),
            "short": Sampling(14, temperature=0.8, top_p=0.9, seed=11),
            "late": Sampling(3),
            "last": Sampling(12, temperature=1.2, seed=12),
        }
        joins = {0: ["long"], 2: ["short", "late"], 6: ["last"]}
        batch, found, step = Batch(any_family), {}, 0
        while len(batch) or step <= max(joins):
            for key in joins.get(step, ()):
                batch.join(key, any_family.encode_text(prompts[key]), samplings[key])
            for taken in batch.step():
                if taken.finish_reason:
                    found[taken.key] = batch.leave(taken.key)
            step += 1

        assert set(prompts) == set(found)
        for key, generation in found.items():
            alone = consortia.decode(any_family, prompts[key], samplings[key])
            _assert_same(alone, generation)

    def test_the_order_of_joining_does_not_matter(self, llama):
        """Rows keep to their own prompts and seeds, whichever joined first."""
        prompts = ["one", "a second, longer", "3"]
        for order in (prompts, prompts[::-1]):
            batch = Batch(llama)
            for seed, prompt in enumerate(order):
                batch.join(prompt, llama.encode_text(prompt), Sampling(6, temperature=1.0, seed=seed))
            while len(batch):
                batch.step()
            for seed, prompt in enumerate(order):
                _assert_same(consortia.decode(llama, prompt, Sampling(6, 1.0, seed=seed)), batch.leave(prompt))

    def test_what_is_captured_is_what_the_layers_saw(self, any_family):
        """The captured tensors are those of one plain forward pass over prompt and response."""
        found = consortia.decode(any_family, "who owns this?", Sampling(7))
        network, layers = any_family.network, any_family.layers
        seen = {}

        def remember(name, pick):
            return lambda _, arguments, output: seen.update({name: pick(arguments, output)[0]})

        hooks = [
            layers.blocks[2].register_forward_hook(remember("tail_input", lambda a, _: a[0])),
            layers.last_block.register_forward_hook(remember("block_input", lambda a, _: a[0])),
            layers.o_proj.register_forward_hook(remember("o_proj_input", lambda a, _: a[0])),
            layers.o_proj.register_forward_hook(remember("o_proj_output", lambda _, o: o)),
        ]
        with torch.no_grad():
            network(torch.tensor([[*found.prompt_token_ids, *found.token_ids[:-1]]]), past_key_values=DynamicCache())
        for hook in hooks:
            hook.remove()

        torch.testing.assert_close(seen.pop("tail_input"), found.tail_input, rtol=1e-4, atol=1e-4)
        for name, tensor in seen.items():
            expected = tensor[len(found.prompt_token_ids) - 1 :]
            torch.testing.assert_close(expected, getattr(found, name), rtol=1e-4, atol=1e-4)


def _assert_same(alone, found) -> None:
    assert alone.token_ids == found.token_ids
    assert (alone.text, alone.tokens, alone.finish_reason) == (found.text, found.tokens, found.finish_reason)
    assert pytest.approx(alone.logprobs, abs=1e-4) == found.logprobs
    for name in ("tail_input", "block_input", "o_proj_input", "o_proj_output"):
        torch.testing.assert_close(getattr(alone, name), getattr(found, name), rtol=1e-4, atol=1e-4)


class TestLeaving:
    """A row may leave at any time with what it has, and the others notice nothing."""

    def test_leaving_early_returns_what_was_generated(self, llama):
        """A row that leaves after four steps has four tokens, no reason to have ended, and the tensors of both."""
        whole = consortia.decode(llama, "who owns this?", Sampling(10))
        batch = Batch(llama)
        batch.join("early", llama.encode_text("who owns this?"), Sampling(10))
        batch.join("stays", llama.encode_text("stays"), Sampling(10))
        for _ in range(4):
            batch.step()
        found = batch.leave("early")

        assert (1, None) == (len(batch), found.finish_reason)
        assert whole.token_ids[:4] == found.token_ids
        assert "".join(whole.tokens[:4]) == found.text
        torch.testing.assert_close(whole.tail_input[: 14 + 3], found.tail_input, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(whole.o_proj_output[:4], found.o_proj_output, rtol=1e-4, atol=1e-4)
        while len(batch):
            batch.step()
        _assert_same(consortia.decode(llama, "stays", Sampling(10)), batch.leave("stays"))

    def test_leaving_before_the_first_step_returns_nothing(self, llama):
        """A row that never got a token leaves with none, and the batch is empty."""
        batch = Batch(llama)
        batch.join("r", llama.encode_text("hello"), Sampling(5))
        found = batch.leave("r")

        assert (0, (), "", None) == (len(batch), found.token_ids, found.text, found.finish_reason)
        assert (0, 0, 0) == (len(found.block_input), len(found.o_proj_input), len(found.o_proj_output))
        assert [] == batch.step()

    def test_a_key_may_be_used_again(self, llama):
        """Once a row has left, its key is free for another."""
        batch = Batch(llama)
        for _ in range(2):
            batch.join("r", llama.encode_text("hello"), Sampling(2))
            batch.step()
            batch.leave("r")

        assert 0 == len(batch)


class TestEnding:
    """A response ends at its end token, at a stop string, or at its length, and says which."""

    def test_the_end_token_is_counted_but_not_shown(self, parrot):
        """An end token ends the response, is one of its tokens, and adds nothing to its text."""
        found, steps = _say(parrot)

        assert (SAYING, "stop") == (found.text, found.finish_reason)
        assert parrot.tokenizer.eos_token_id == found.token_ids[-1]
        assert len(SAYING.encode()) + 1 == len(found.token_ids) == len(found.tokens) == len(found.logprobs)
        assert ("", "stop") == (found.tokens[-1], steps[-1].finish_reason)
        assert {None} == {step.finish_reason for step in steps[:-1]}

    @pytest.mark.parametrize("length", [1, 5, 12])
    def test_the_length_is_kept(self, parrot, length):
        """A response has at most `max_new_tokens` tokens, and then ended for its length."""
        found, steps = _say(parrot, max_new_tokens=length)

        assert (length, "length") == (len(found.token_ids), found.finish_reason)
        assert length == len(steps)

    def test_the_whole_context_may_be_used(self, llama):
        """Prompt and response together may fill the context to the last token."""
        prompt = "x" * (llama.context_length - 3)
        found, _ = _say(llama, prompt, max_new_tokens=3, temperature=1.0, seed=0)

        assert 3 == len(found.token_ids)

    @pytest.mark.parametrize(
        ("stop", "text"),
        [
            (("two",), "Ja: café ✓ 🎉, one "),
            (("three", "one", "two"), "Ja: café ✓ 🎉, "),
            (("e", "one"), "Ja: café ✓ 🎉, "),
            (("é ✓",), "Ja: caf"),
            (("🎉",), "Ja: café ✓ "),
            ((".",), "Ja: café ✓ 🎉, one two three"),
            (("J",), ""),
        ],
        ids=str,
    )
    def test_text_ends_before_the_stop(self, parrot, stop, text):
        """The first stop string that appears ends the response; the text, in one or in pieces, ends before it."""
        found, steps = _say(parrot, stop=stop)

        assert (text, "stop") == (found.text, found.finish_reason)
        assert text == "".join(step.text for step in steps)
        assert any(found.token_ids[-1] in parrot.encode_text(each) for each in stop)

    @pytest.mark.parametrize("stop", [("two hundred",), ("🎉🎉", "café au lait"), ("three. And more",)])
    @pytest.mark.parametrize("length", [60, 30, 7])
    def test_text_held_back_is_released(self, parrot, stop, length):
        """Text that only began like a stop string is shown after all, at the latest when the response ends."""
        found, steps = _say(parrot, stop=stop, max_new_tokens=length)
        unstopped, _ = _say(parrot, max_new_tokens=length)

        assert unstopped.text == found.text
        assert found.text == "".join(step.text for step in steps)

    def test_nothing_is_shown_that_may_begin_a_stop(self, parrot):
        """While a stop string may be under way, its beginning is not shown."""
        _, steps = _say(parrot, stop=("one two three!",))
        shown = ""
        for step in steps[:-1]:
            shown += step.text
            assert "one" not in shown or "." in shown


class TestPieces:
    """Every token has a piece of text, and the pieces are the text."""

    def test_pieces_make_the_text(self, parrot):
        """Pieces and steps concatenate to the text; a character of several tokens appears, whole, with its last."""
        found, steps = _say(parrot)

        assert SAYING == found.text == "".join(found.tokens) == "".join(step.text for step in steps)
        assert ["🎉"] == [piece for piece in found.tokens[14:18] if piece]
        assert "🎉" == found.tokens[17]

    @pytest.mark.parametrize("prompt", ["hi", "caf\u00e9", "hi\ufffd", "\ufffd", "🎉", "\u200d"])
    def test_the_text_is_the_response_s_own(self, llama, prompt):
        """However the prompt ends, the text is the tokenizer's reading of the response alone, but for a torn end."""
        for seed in range(6):
            found, steps = _say(llama, prompt, max_new_tokens=12, temperature=1.0, seed=seed)
            expected = llama.tokenizer.decode(found.token_ids, skip_special_tokens=True)

            assert expected.rstrip("\ufffd") == found.text.rstrip("\ufffd")
            assert found.text == "".join(found.tokens) == "".join(step.text for step in steps)


class TestSampling:
    """Sampling is reproducible from its seed and keeps to the nucleus."""

    def test_the_same_seed_says_the_same(self, llama):
        """A seed fixes the response, and different seeds say different things."""
        said = [_say(llama, "x", temperature=1.0, seed=seed, max_new_tokens=10)[0].token_ids for seed in (1, 2, 3, 1)]

        assert said[0] == said[3]
        assert 3 == len(set(said))

    def test_no_seed_says_something_new(self, llama):
        """Without a seed two responses differ."""
        said = [_say(llama, "x", temperature=1.5, max_new_tokens=20)[0].token_ids for _ in range(2)]

        assert said[0] != said[1]

    @pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.3), (0.5, 0.6), (2.0, 0.1)])
    def test_top_p_keeps_only_the_nucleus(self, llama, temperature, top_p):
        """Every sampled token is of the smallest set that reaches top_p; its log-probability is the whole softmax's."""
        ids = llama.encode_text("who?")
        with torch.no_grad():
            log_p = (llama.network(torch.tensor([ids])).logits[0, -1] / temperature).log_softmax(-1)
        p, order = log_p.exp().sort(descending=True)
        nucleus = set(order[: int((p.cumsum(0) < top_p).sum()) + 1].tolist())
        taken = [
            _say(llama, "who?", max_new_tokens=1, temperature=temperature, top_p=top_p, seed=s)[0] for s in range(60)
        ]

        assert nucleus >= {generation.token_ids[0] for generation in taken}
        assert 1 < len({generation.token_ids[0] for generation in taken}) or 1 == len(nucleus)
        for generation in taken:
            assert pytest.approx(float(log_p[generation.token_ids[0]]), abs=1e-4) == generation.logprobs[0]

    def test_the_smallest_nucleus_is_greedy(self, llama):
        """A top_p next to zero leaves only the likeliest token."""
        greedy = consortia.decode(llama, "who?", Sampling(8))

        assert greedy.token_ids == _say(llama, "who?", max_new_tokens=8, temperature=1.0, top_p=1e-9)[0].token_ids

    @pytest.mark.parametrize("scale", [1e2, 1e5])
    def test_the_lowest_temperature_is_greedy(self, tmp_path, scale):
        """At the lowest temperature allowed the likeliest token is taken, however far apart the logits are."""
        base = consortia.base_model("llama", tied=False)
        base.lm_head.weight.data *= scale
        update = consortia.lora_update(base, 0, first_block=2)
        model = FederatedModel.load(consortia.write_consortium(tmp_path, base, {"a": update}))
        coldest = consortia.decode(model, "who?", Sampling(5, temperature=0.01, seed=0))

        assert consortia.decode(model, "who?", Sampling(5)).token_ids == coldest.token_ids
        assert all(math.isfinite(logprob) for logprob in coldest.logprobs)


class TestRefusals:
    """What cannot be decoded is refused by the parameter's name, and the batch goes on as if nothing had been asked."""

    @pytest.mark.parametrize(
        ("prompt", "settings", "parameter"),
        [
            ("", {}, "messages"),
            ("x" * 129, {"max_new_tokens": 1}, "messages"),
            ("x" * 120, {"max_new_tokens": 9}, "messages"),
            ("x", {"max_new_tokens": 10**9}, "messages"),
            ("x", {"max_new_tokens": 0}, "max_tokens"),
            ("x", {"max_new_tokens": -1}, "max_tokens"),
            ("x", {"temperature": math.nan}, "temperature"),
            ("x", {"temperature": math.inf}, "temperature"),
            ("x", {"temperature": -0.1}, "temperature"),
            ("x", {"temperature": 5e-324}, "temperature"),
            ("x", {"temperature": 0.009}, "temperature"),
            ("x", {"temperature": 2.1}, "temperature"),
            ("x", {"top_p": -0.1}, "top_p"),
            ("x", {"top_p": 1.1}, "top_p"),
            ("x", {"top_p": math.nan}, "top_p"),
            ("x", {"top_k": -1}, "top_k"),
            ("x", {"min_p": -0.1}, "min_p"),
            ("x", {"min_p": math.nan}, "min_p"),
            ("x", {"frequency_penalty": 2.1}, "frequency_penalty"),
            ("x", {"presence_penalty": -2.1}, "presence_penalty"),
            ("x", {"presence_penalty": math.nan}, "presence_penalty"),
            ("x", {"logit_bias": {5: 100.5}}, "logit_bias"),
            ("x", {"logit_bias": {5: math.nan}}, "logit_bias"),
            ("x", {"logit_bias": {-1: 1.0}}, "logit_bias"),
            ("x", {"max_new_tokens": 4, "logit_bias": {259: 1.0}}, "logit_bias"),
            ("x", {"top_logprobs": 21}, "top_logprobs"),
            ("x", {"top_logprobs": -1}, "top_logprobs"),
            ("x", {"stop": ("",)}, "stop"),
            ("x", {"stop": ("end", "")}, "stop"),
            ("x", {"max_new_tokens": 4, "temperature": 1.0, "seed": 2**70}, "seed"),
        ],
    )
    def test_a_refusal_leaves_the_batch_as_it_was(self, llama, prompt, settings, parameter):
        """A bad prompt or setting is refused by name, and a row under way is decoded as if alone."""
        batch = Batch(llama)
        batch.join("good", llama.encode_text("who owns this?"), Sampling(6))
        batch.step()
        with pytest.raises(PromptError) as refused:
            batch.join("bad", llama.encode_text(prompt), Sampling(**settings))

        assert parameter == refused.value.parameter
        assert 1 == len(batch)
        while len(batch):
            batch.step()
        _assert_same(consortia.decode(llama, "who owns this?", Sampling(6)), batch.leave("good"))
        with pytest.raises(KeyError):
            batch.leave("bad")

    @pytest.mark.parametrize(
        ("template", "messages", "parameter"),
        [
            ("{{ messages[0].content }}", [], "messages"),
            ("{{ raise_exception('roles must alternate') }}", [{"role": "user", "content": "x"}], "messages"),
            ("{{ 'x' + messages[0].content }}", [{"role": "user", "content": 1}], "messages"),
            (None, [{"role": "user", "content": "x"}], "model"),
        ],
    )
    def test_a_conversation_that_no_template_takes_is_refused(self, llama, template, messages, parameter):
        """No messages, messages that the chat template refuses, or no template at all, are refused by name."""
        tokenizer = consortia.tokenizer()
        tokenizer.chat_template = template
        with pytest.raises(PromptError) as refused:
            FederatedModel(llama.bundle, llama.network, tokenizer).encode_chat(messages)

        assert parameter == refused.value.parameter

    def test_a_text_that_no_file_could_hold_is_refused(self, llama):
        """A text with half of a surrogate pair has no bytes and is refused."""
        with pytest.raises(PromptError):
            llama.encode_text("\ud800")
