"""`protoken evaluate` and `protoken trace`: what they print, and what they refuse."""

import json

import pytest

from deployment.cli.configs import configs_folder
from tests.attribution import consortia
from tests.deployment.cli.test_commands import run


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A random consortium of three."""
    base = consortia.base_model("llama")
    return consortia.write_consortium(tmp_path_factory.mktemp("trace"), base, consortia.updates(base))


def _flagged(folder, *lines: object):
    path = folder / "flagged.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


class TestTrace:
    """Flagged responses in, clients ranked by responsibility out."""

    def test_json_has_every_client_ranked(self, capsys, bundle, tmp_path):
        """`--json` prints all clients in falling responsibility, with confidence, and a verdict."""
        path = _flagged(tmp_path, {"prompt": "who?", "response": "me"}, "", {"prompt": "who?"})
        code, out, _ = run(
            capsys, "trace", "--bundle", str(bundle), "--responses", str(path), "--max-new-tokens", "4", "--json"
        )
        found = json.loads(out)
        responsibilities = [suspect["responsibility"] for suspect in found["suspects"]]

        assert code == 0
        assert {"a", "b", "c"} == {suspect["client"] for suspect in found["suspects"]}
        assert responsibilities == sorted(responsibilities, reverse=True)
        assert found["responses"] == 2
        assert found["verdict"]

    def test_a_table_and_a_verdict_are_shown(self, capsys, bundle, tmp_path):
        """Without `--json` a table names each client, and a sentence says whom to look at."""
        path = _flagged(tmp_path, {"prompt": "who?", "response": "me"})
        code, out, _ = run(capsys, "trace", "--bundle", str(bundle), "--responses", str(path), "--raw")

        assert code == 0
        assert all(word in out for word in ("1 flagged responses", "responsible", "gain over the base model"))

    @pytest.mark.parametrize(
        ("line", "named"),
        [
            ("{", "flagged.jsonl:2: not JSON"),
            ("[]", 'flagged.jsonl:2: needs "prompt"'),
            ({"prompt": ""}, 'flagged.jsonl:2: needs "prompt"'),
            ({"prompt": "x", "response": ""}, "neither empty"),
            ({"prompt": "x", "response": 3}, "neither empty"),
            ({"prompt": "x" * 200, "response": "y"}, "context holds 128"),
        ],
    )
    def test_a_malformed_line_is_named(self, capsys, bundle, tmp_path, line, named):
        """A line that is no flagged response ends the command with file and line."""
        path = _flagged(tmp_path, {"prompt": "fine"}, line)
        code, _, err = run(
            capsys, "trace", "--bundle", str(bundle), "--responses", str(path), "--max-new-tokens", "3", "--raw"
        )

        assert code == 1
        assert named in err

    def test_missing_and_empty_files_are_named(self, capsys, bundle, tmp_path):
        """A file that is not there, or holds nothing, ends the command with its name."""
        for path, named in ((tmp_path / "none.jsonl", "cannot be read"), (_flagged(tmp_path, ""), "holds no flagged")):
            code, _, err = run(capsys, "trace", "--bundle", str(bundle), "--responses", str(path))
            assert code == 1
            assert named in err and path.name in err

    @pytest.mark.parametrize(
        ("line", "named"),
        [
            ('{"prompt": "a", "response": "\\ud800"}', "flagged.jsonl:1: holds half of a surrogate pair"),
            ('{"prompt": "\\udcff"}', "flagged.jsonl:1: holds half of a surrogate pair"),
            ('{"prompt": ' + "9" * 5000 + "}", "flagged.jsonl:1: not JSON"),
            ("[" * 100_000, "flagged.jsonl:1: not JSON"),
        ],
        ids=["response", "prompt", "digits", "deep"],
    )
    def test_a_line_that_no_reader_foresaw_is_named(self, capsys, bundle, tmp_path, line, named):
        """Half a character, a number of thousands of digits, and JSON without end are one line with file and line."""
        code, _, err = run(capsys, "trace", "--bundle", str(bundle), "--responses", str(_flagged(tmp_path, line)))

        assert (1, 1) == (code, len(err.splitlines()))
        assert named in err

    def test_a_byte_order_mark_is_no_fault(self, capsys, bundle, tmp_path):
        """A file that some editor began with a byte order mark is read."""
        path = _flagged(tmp_path, "\ufeff" + '{"prompt": "who?", "response": "me"}')

        assert 0 == run(capsys, "trace", "--bundle", str(bundle), "--responses", str(path), "--json")[0]


class TestEvaluate:
    """What cannot be evaluated is refused before anything is trained."""

    @pytest.mark.parametrize(
        ("arguments", "code", "named"),
        [
            (["E99"], 1, f"no experiment 'E99' in {configs_folder()}/evaluation; there are E1, E2"),
            (["E1", "--configs", "EMPTY"], 1, "holds no experiment's YAML file"),
            (["E1"], 1, "give --data FOLDER"),
            (["E1", "--data", "EMPTY"], 1, "holds no DOMAIN.jsonl"),
            (["E21", "--model", "scratch:mamba"], 1, "not one of llama, qwen2, qwen3, gemma3"),
            (["E21", "--model", "scratch:llama"], 1, "nothing to train on"),
            (["E21", "--model", "transplant:mamba"], 1, "not one of qwen2, llama-untied"),
            (["E21", "--model", "path:/nowhere"], 1, "/nowhere"),
            (["E21", "--model", "ftp:x"], 1, "ftp:x"),
        ],
    )
    def test_wrong_requests_are_named(self, capsys, tmp_path, arguments, code, named):
        """An unknown experiment, an empty folder, missing data or a model that is not there: one line that says so."""
        (tmp_path / "empty").mkdir()
        given = [str(tmp_path / "empty") if each == "EMPTY" else each for each in arguments]
        out = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
        found, _, err = run(capsys, "evaluate", *given, "--quick", *out)

        assert found == code
        assert named in err

    def test_a_domain_without_a_file_is_named(self, capsys, tmp_path):
        """An experiment that wants a domain for which there is no file says which there are."""
        (tmp_path / "law.jsonl").write_text('{"prompt": "p", "response": "r"}\n')
        base = consortia.save_base(consortia.base_model("llama"), tmp_path / "base")
        out = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
        code, _, err = run(capsys, "evaluate", "E5", "--data", str(tmp_path), "--model", base, *out)

        assert code == 1
        assert "domain 'coding' has no file; there are: law" in err
