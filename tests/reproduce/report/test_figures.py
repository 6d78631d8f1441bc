"""The figures: which are drawn, and that what they show is what was measured."""

import importlib
from types import SimpleNamespace

import matplotlib
import pytest
from PIL import Image

from llava_mole.reproduce.claims import PAPER_COLUMNS, load
from llava_mole.reproduce.judge import judge
from llava_mole.reproduce.report.figures import figures
from llava_mole.reproduce.report.figures import style as style_module
from llava_mole.reproduce.report.results import Results
from tests.reproduce.paper_rows import CLAIMS, TINY, measured, paper_rows
from tests.reproduce.report.conftest import LABEL, tiny_results

matplotlib.use("Agg")


def results(name, columns, found, label=""):
    scale = SimpleNamespace(name=name, columns=columns, label=label, more={})
    rows, claims = paper_rows(), load(CLAIMS)
    return Results(scale, rows, rows, found, claims, judge(claims, rows, found, name, columns))


def draw(found):
    """Every figure's text and marks, taken before it is closed."""
    kept = []
    finish = style_module.finish

    def keep(figure, label):
        png = finish(figure, label)
        axes = figure.axes
        kept.append(
            SimpleNamespace(
                title=figure.get_suptitle(),
                texts=[text.get_text() for axis in axes for text in axis.texts],
                ticks=[t.get_text() for axis in axes for t in axis.get_yticklabels()],
                titles=[axis.get_title() for axis in axes],
                bars=[bar.get_width() for axis in axes for bar in axis.patches],
                heights=[bar.get_height() for axis in axes for bar in axis.patches],
                limits=[axis.get_ylim() for axis in axes],
                points=[float(x) for axis in axes for line in axis.lines for x in line.get_xdata()],
            )
        )
        return png

    with pytest.MonkeyPatch.context() as patch:
        for name in ("domains", "forest", "curves", "routing"):
            module = importlib.import_module(f"llava_mole.reproduce.report.figures.{name}")
            patch.setattr(module, "finish", keep)
        made = list(figures(found))
    assert len(made) == len(kept)
    return dict(zip([figure.name for figure in made], kept, strict=True))


@pytest.fixture(scope="module")
def found():
    return results("tiny", TINY, tiny_results(), LABEL)


@pytest.fixture(scope="module")
def drawn(found):
    return draw(found)


def test_all_figures_of_a_study(tiny):
    names = {path.stem for path in (tiny / "figures").iterdir()}
    others = {"figure-1", "figure-3", "routers", "ranks", "experts"}
    assert names == {*others, *(f"claim-C{n}" for n in range(1, 11))}
    for path in (tiny / "figures").iterdir():
        # They are committed.
        assert path.stat().st_size < 150_000
        with Image.open(path) as image:
            assert min(image.size) > 300
            assert image.info["dpi"][0] == pytest.approx(160, abs=1)


def test_the_label_is_on_every_figure(drawn):
    assert len(drawn) == 15
    assert {figure.title.replace("\n", " ") for figure in drawn.values()} == {LABEL}


def test_figure_1_shows_the_means(drawn, found):
    figure = drawn["figure-1"]
    for name in ("llava-1.5-1-0-0", "llava-mix-equal-1-1-1", "llava-mole-1-1-1"):
        assert name.upper() in figure.ticks
        for column in TINY:
            mean = found.estimate(name, column).value
            assert any(width == pytest.approx(mean) for width in figure.bars)
            assert f"{mean:.1f}" in figure.texts


def test_an_interval_wider_than_scores_does_not_stretch_the_curves():
    two = {seed: {"general": 20.0 + 60 * seed, "document": 50.0 + seed} for seed in (0, 1)}
    found = results("tiny", TINY, {"llava-mix-1-1-r64": measured(two)})
    assert found.estimate("llava-mix-1-1-r64", "general").low < -100
    general, document = draw(found)["ranks"].limits
    assert general == (0, 100)
    assert 0 < document[0] < 50 < document[1] < 100


def test_the_papers_values_are_drawn_at_its_scale_only(drawn):
    assert not [x for figure in drawn.values() for x in figure.points if x > 200]
    paper = draw(results("paper", PAPER_COLUMNS, {}))
    # C8 and C9 are not in the paper.
    assert set(paper) == set(drawn) - {"claim-C8", "claim-C9", "figure-3", "routers"}
    assert 307.3 in paper["figure-1"].points
    assert -2.7 in paper["claim-C2"].points


def test_nothing_measured_draws_nothing():
    assert list(figures(results("tiny", TINY, {}))) == []


def test_forest_has_every_comparison_with_what_is_expected(drawn, found):
    for judgement in found.judgements:
        if all(outcome.difference is None for outcome in judgement.outcomes):
            assert f"claim-{judgement.name}" not in drawn
            continue
        figure = drawn[f"claim-{judgement.name}"]
        assert len(figure.ticks) == len(judgement.outcomes)
        missing = sum(outcome.difference is None for outcome in judgement.outcomes)
        assert figure.texts.count("not measured") == missing
    assert drawn["claim-C2"].texts.count("> −2.0") == 10
    # LLaVA-Mix[1,2,1] is missing.
    assert "not measured" in drawn["claim-C1"].texts
    outcome = found.judgements[1].outcomes[0]
    assert any(x == pytest.approx(outcome.difference.value) for x in drawn["claim-C2"].points)
    assert any(x == pytest.approx(outcome.control.value) for x in drawn["claim-C2"].points)


def test_figure_3_is_the_first_seeds_load(found):
    routing = {
        seed: {"layers": [1, 5], "load": {"a": [[700, 300], share], "b": [[100, 900], share]}}
        for seed, share in ((7, [0, 1000]), (3, [600, 400]))
    }
    one = {"llava-mole-1-1-1": measured({3: {}, 7: {}}, routing=routing)}
    figure = draw(results("tiny", TINY, one))["figure-3"]
    assert figure.titles == ["layer 1", "layer 5"]
    # Expert by expert, the benchmarks beside one another.
    assert figure.heights == pytest.approx([0.7, 0.1, 0.3, 0.9, 0.6, 0.6, 0.4, 0.4])
    (made,) = [one for one in figures(results("tiny", TINY, one)) if one.name == "figure-3"]
    assert "LLAVA-MOLE-1-1-1, seed 3:" in made.caption


def test_no_figure_3_without_routing():
    bare = measured({0: {}}, extras={0: {"seconds": 1.0}}, routing={0: {"layers": [], "load": {}}})
    assert list(figures(results("tiny", TINY, {"llava-mole-1-1-1": bare}))) == []


def test_routers_have_every_seed_and_a_run_once():
    bits = {seed: {"mutual_information": value} for seed, value in ((0, 0.25), (1, 0.75))}
    scores = {0: {"general": 1.0}, 1: {"general": 2.0}}
    one, other = measured(scores, extras=bits), measured(scores, half=4.0, extras=bits)
    names = {"llava-mole-1-1-0": one, "llava-mole-k2": one, "llava-mole-k3": other}
    figure = draw(results("tiny", TINY, {**names, "llava-mix-1-1-1": measured(scores)}))["routers"]
    assert figure.ticks == ["LLAVA-MOLE-1-1-0", "LLAVA-MOLE-K3"]
    assert figure.points.count(0.25) == figure.points.count(0.75) == 2
    assert figure.points.count(0.5) == 2
