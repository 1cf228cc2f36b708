"""Members' question–answer files, and base models that cannot be trained on them, are refused in one line."""

import json
import os
from pathlib import Path

import pytest

from attribution.base.references import load_tokenizer
from attribution.errors import RecipeError
from attribution.progress import NoProgress
from attribution.training.federate import build_bundle
from attribution.training.local import encode_example
from attribution.training.recipe import Example, load_examples, load_recipe
from tests.attribution import consortia

LINE = b'{"prompt": "q", "response": "a"}'


@pytest.mark.parametrize(
    "content",
    [LINE, b"\xef\xbb\xbf" + LINE, LINE + b"\r\n", b"\n\n" + LINE + b"\n"],
    ids=["plain", "mark", "CRLF", "gaps"],
)
def test_what_editors_leave_is_read(tmp_path, content):
    """A byte order mark, other line ends and empty lines are no fault."""
    (tmp_path / "data.jsonl").write_bytes(content)

    assert [Example("q", "a")] == load_examples(tmp_path / "data.jsonl")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (LINE.decode().encode("utf-16"), "data.jsonl: cannot be read: it is UTF-16; save it as UTF-8"),
        (LINE.decode().encode("utf-16-le"), "data.jsonl:1: not an object"),
        (b'{"prompt": "caf\xe9", "response": "a"}', "data.jsonl: cannot be read: it is not UTF-8, from byte 15 on"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "data.jsonl: is a Git LFS pointer"),
        (LINE + b"\n[]", "data.jsonl:2: not an object"),
        (b'[{"prompt": "q", "response": "a"}]', "data.jsonl:1: not an object"),
        (b'{"prompt": ' + b"9" * 5000 + b', "response": "a"}', "data.jsonl:1: not an object"),
        (b"[" * 100_000, "data.jsonl:1: not an object"),
        (b'{"prompt": "q"}', "data.jsonl:1: .*'response' is not known"),
        (b'{"prompt": "q", "response": null}', "data.jsonl:1: prompt and response must be texts"),
        (b'{"prompt": {"a": 1}, "response": "a"}', "data.jsonl:1: prompt and response must be texts"),
        (b"", "data.jsonl: holds no examples"),
        (b"\0" * 100, "data.jsonl:1: not an object"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_malformed_file_is_refused(tmp_path, content, named):
    """File, line and what is wrong are named."""
    (tmp_path / "data.jsonl").write_bytes(content)
    with pytest.raises(RecipeError, match=rf"\A[^\n]*{named}[^\n]*\Z"):
        load_examples(tmp_path / "data.jsonl")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("steps: 010", "010 is no decimal number"),
        ("learning_rate: 1:30.5", "1:30.5 is no decimal number"),
        ("rounds: 2\nrounds: 3", "rounds is given twice"),
        ("clients: [{id: a, examples: 0x10}]", "0x10 is no decimal number"),
    ],
)
def test_a_recipe_means_what_it_seems_to(tmp_path, line, named):
    """What a member declares is its weight: YAML would read 010 as eight, and take the last of two."""
    (tmp_path / "recipe.yaml").write_text(f"consortium: c\n{line}\n")
    with pytest.raises(RecipeError, match=rf"\A[^\n]*recipe.yaml[^\n]*{named}[^\n]*\Z"):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda path: path.mkdir(), "is a folder; a file is needed"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.symlink_to("/nowhere"), "leads nowhere"),
        (lambda _: None, "no such file"),
    ],
    ids=["folder", "pipe", "device", "dead link", "missing"],
)
@pytest.mark.parametrize("read", [load_examples, load_recipe])
def test_what_is_no_file_is_refused(tmp_path, read, make, named):
    """A folder, pipe, device or dead link in the place of a member's file or of the recipe is refused at once."""
    make(tmp_path / "file")
    with pytest.raises(RecipeError, match=f"file: .*{named}"):
        read(tmp_path / "file")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"chat_template": "{{ raise_exception('roles\nmust alternate') }}"}, "chat template refuses 'q': roles must"),
        ({"chat_template": "{% for m in"}, "chat template refuses 'q'"),
        ({"chat_template": "{{ messages[7].content.nothing.more }}"}, "chat template refuses 'q'"),
        ({"chat_template": "{{ 1 / 0 }}"}, "chat template refuses 'q': division by zero"),
        ({"eos_token": None}, "names no end token"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_tokenizer_that_cannot_be_trained_with_is_refused(tmp_path, changes, named):
    """A chat template that fails, whatever it raises, and a tokenizer without an end token are refused in one line."""
    consortia.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(RecipeError, match=rf"\A[^\n]*{named}[^\n]*\Z"):
        encode_example(load_tokenizer(tmp_path), Example("q", "a"))


def test_a_base_without_chat_template_is_trained_on_bare_questions(tmp_path):
    """Where the base model has no chat template, questions go in as they stand, and a bundle is built."""
    base = Path(tmp_path / "base")
    consortia.save_base(consortia.base_model("llama"), base)
    (base / "chat_template.jinja").unlink()
    (tmp_path / "data.jsonl").write_bytes(LINE)
    (tmp_path / "recipe.yaml").write_text(
        f"{{consortium: x, base: 'path:{base}', rounds: 1, steps: 1, clients: [{{id: a, name: A, data: data.jsonl}}]}}"
    )

    bundle = build_bundle(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "bundle", NoProgress())
    assert ("a",) == bundle.client_ids
