"""The report: all that was asked, what was missed, plots as data drew them, and no markup from anybody's texts."""

import xml.etree.ElementTree as ET

import pytest

from attribution.evaluation.plots import draw
from attribution.evaluation.report import write_report
from attribution.evaluation.results import Figure, Plot, Result

SERIES = {"credit": [(0.0, 1.0), (1.0, 0.5)], "paper": [(0.0, 0.2), (1.0, 0.4)]}


def _plot(kind: str = "lines", **changes) -> Plot:
    return Plot(name="p", title="Title", kind=kind, x_label="x", y_label="y", series=SERIES, **changes)


def _result(experiment: str = "E3", **changes) -> Result:
    figures = [
        Figure(name="reached", value=0.99, n=100, unit="proportion", low=0.95, high=1.0, chance=0.25, target=0.9,
               at_least=True),
        Figure(name="missed|one", value=0.2, n=4, unit="share", target=0.1, note="too <few> examples"),
        Figure(name="informs", value=2.5, n=3, unit="ratio"),
    ]  # fmt: skip
    document = {
        "experiment": experiment, "title": "A <b>title</b>", "question": "Is it so? & why", "profile": "full",
        "model": "<script>alert(1)</script>", "data": {"a": "0" * 64}, "seeds": [0, 1], "coverage": 0.5,
        "settings": {"note": "</pre><script>"}, "version": "1", "finished": "2026-11-23T00:00:00+00:00",
        "seconds": 12.0, "figures": figures, "plots": [_plot()], "notes": ["A <note> | with a pipe"],
    }  # fmt: skip
    return Result.model_validate(document | changes)


def test_the_report_says_what_was_missed(tmp_path):
    """Both forms count the targets met, list the missed figure with its value and target, and show every figure."""
    page, text = write_report([_result()], tmp_path)
    for file in (page, text):
        content = file.read_text(encoding="utf-8")
        assert "1 of 2 targets are met" in content
        assert "0.200 where ≤ 0.100 was wanted" in content
        assert all(word in content for word in ("reached", "informs", "95.0% – 100.0%", "Coverage 50.0%", "seeds 0, 1"))
    assert (tmp_path / "plots" / "E3-p.svg").is_file()
    assert "![Title](plots/E3-p.svg)" in text.read_text(encoding="utf-8")


def test_texts_are_shown_and_not_obeyed(tmp_path):
    """Markup in names, notes, models and settings is escaped in the page and in the Markdown's tables."""
    page, text = write_report([_result()], tmp_path)
    html, markdown = page.read_text(encoding="utf-8"), text.read_text(encoding="utf-8")

    assert "<script" not in html
    assert "</pre><script>" not in html
    assert "<b>title" not in html + markdown
    assert "missed\\|one" in markdown


def test_a_quick_profile_is_marked(tmp_path):
    """A result of the quick profile says that it shows nothing but that the experiment runs."""
    page, text = write_report([_result(profile="quick")], tmp_path)

    assert all(
        "Quick profile: it shows that the experiment runs" in f.read_text(encoding="utf-8") for f in (page, text)
    )


def test_everything_met_says_so(tmp_path):
    """Where nothing was missed, the list of what was missed says nothing."""
    page, _ = write_report([_result(figures=[], plots=[])], tmp_path)

    assert "<p>Nothing.</p>" in page.read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize(
    "plot",
    [
        _plot(target=0.5),
        _plot("scatter", diagonal=True),
        _plot("bars", categories=["short", "a long category <&>"], log_y=True),
        _plot().model_copy(update={"series": {f"series {n}": [(0.0, float(n))] for n in range(10)}}),
    ],
    ids=["lines", "scatter", "bars", "many series"],
)
def test_the_same_data_draws_the_same_picture(tmp_path, plot):
    """Every kind of plot is well-formed SVG with its texts in it, and byte for byte the same when drawn again."""
    for name in ("first.svg", "second.svg"):
        draw(plot, tmp_path / name)
    first = (tmp_path / "first.svg").read_text(encoding="utf-8")

    assert first == (tmp_path / "second.svg").read_text(encoding="utf-8")
    words = "".join(ET.fromstring(first).itertext())
    assert all(word in words for word in (plot.title, plot.x_label, *plot.categories, *plot.series))
