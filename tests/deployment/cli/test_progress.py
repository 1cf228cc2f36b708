"""How far long work is, told where nobody sees a bar: a line now and then."""

import io
from pathlib import Path

import pytest

from deployment.cli import main, progress
from deployment.cli.progress import ProgressLines
from tests.attribution import consortia


def test_long_work_says_a_line_now_and_then() -> None:
    """How far it is and since when, without a control character; work that is done at once says nothing."""
    out, moments = io.StringIO(), iter([0.0, 1.0, 2.0, 11.0, 12.0, 22.0, 23.0])
    progress = ProgressLines(out, interval_s=10, clock=lambda: next(moments))
    progress.start("training\x1b[31m", 3)
    for _ in range(3):
        progress.advance()
    progress.start("writing", 2)
    progress.advance()

    assert "training\\x1b[31m: 2 of 3, 11 s\nwriting: 0 of 2, 22 s\n" == out.getvalue()


@pytest.mark.long
def test_training_tells_how_far_it_is_when_it_is_redirected(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Lines on stderr name the stage and count its pieces; stdout stays JSON, and no control character is in either."""
    monkeypatch.setattr(progress, "INTERVAL_S", 0.0)
    base = consortia.save_base(consortia.base_model("llama"), tmp_path / "base")
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": "who?", "response": "me"}\n')
    clients = ", ".join(f"{{id: {name}, name: {name}, data: {name}.jsonl}}" for name in "ab")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"consortium: x\nbase: {base}\nrounds: 2\nsteps: 2\nclients: [{clients}]\n")
    capsys.readouterr()  # of who saved the base
    with pytest.raises(SystemExit) as ended:
        main(["consortium", "build", str(recipe), "--out", str(tmp_path / "bundle"), "--json"])
    out, err = capsys.readouterr()

    assert 0 == (ended.value.code or 0), err
    assert out.startswith("{")
    assert any(" of " in line and line.endswith(" s") for line in err.splitlines())
    assert not {letter for letter in out + err if ord(letter) < 32} - {"\n"}
