"""The pictures: what is drawn has the heights, the colours and the places of the numbers."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from llava_mole.analysis.routing import palette
from llava_mole.analysis.routing.comparison import compare
from llava_mole.analysis.routing.counts import Counts
from llava_mole.analysis.routing.draw_compare import draw_comparison
from llava_mole.analysis.routing.draw_load import draw_kinds, draw_load
from llava_mole.analysis.routing.draw_trace import MOST_LAYERS, draw_trace, shown_places
from llava_mole.analysis.routing.draw_training import draw_training
from llava_mole.analysis.routing.drawing import check_suffix, pyplot, save
from llava_mole.analysis.routing.training import Training
from tests.analysis.routing import helpers


def counts(sets=("mine", "_$x$"), layers=3, experts=3):
    generator = torch.Generator().manual_seed(0)
    shape = (layers, 4, 3, experts)
    return {
        name: Counts(tuple(range(layers)), torch.randint(1, 20, shape, generator=generator))
        for name in sets
    }


def colours(patches):
    from matplotlib.colors import to_hex

    return [to_hex(patch.get_facecolor()).lower() for patch in patches]


def test_bars_of_figure_3_are_means_and_their_lines_deviations():
    made = counts()
    with pyplot() as plt:
        axis = draw_load(plt, made, [2, 0]).axes[0]
        assert axis.get_title() == "layer 2"
        heights = [bar.get_height() for bar in axis.patches]
        expected = [float(one.mean[2, k]) for k in range(3) for one in made.values()]
        assert heights == pytest.approx(expected)
        assert colours(axis.patches) == [palette.colour(k).lower() for k in (0, 0, 1, 1, 2, 2)]
        spans = [
            float(segment[1, 1] - segment[0, 1]) / 2
            for lines in axis.collections
            for segment in lines.get_segments()
        ]
        expected = [float(one.std[2, k]) for k in range(3) for one in made.values()]
        assert spans == pytest.approx(expected)


def test_a_load_without_deviations_has_bars_alone():
    load = SimpleNamespace(layers=[4], mean=torch.tensor([[0.25, 0.75]]), std=None)
    with pyplot() as plt:
        figure = draw_load(plt, {"a": load, "b": load}, [0], "outside lower center")
        axis = figure.axes[0]
        assert [bar.get_height() for bar in axis.patches] == [0.25, 0.25, 0.75, 0.75]
        assert not axis.collections
        assert axis.get_ylim()[1] == pytest.approx(1.03 * 0.75)


def test_stacked_bars_of_a_kind_are_its_shares():
    made = counts(("one",))
    with pyplot() as plt:
        figure = draw_kinds(plt, made)
        for kind, axis in enumerate(figure.axes[:3]):
            share = made["one"].by_kind[kind]
            expected = [float(share[layer, k]) for k in range(3) for layer in range(3)]
            assert [bar.get_height() for bar in axis.patches] == pytest.approx(expected)
            tops = [bar.get_y() + bar.get_height() for bar in axis.patches[-3:]]
            assert tops == pytest.approx([1, 1, 1])


def test_comparison_shows_value_and_chance():
    compared = compare(counts(("a", "b", "c")), shuffles=20)
    with pyplot() as plt:
        left, right = draw_comparison(plt, compared).axes
        assert len(left.get_lines()) == 1 + 3
        measured = right.get_lines()[-1]
        assert list(measured.get_ydata()) == pytest.approx(compared.information.value.tolist())
        assert f"{compared.information.maximum:.2f}" in right.get_ylabel()


def test_training_with_a_window_without_tokens_and_without_a_checkpoint(tmp_path):
    load = torch.tensor([[0.5, 0.5], [torch.nan, torch.nan], [0.25, 0.75]]).double()
    steps = torch.zeros(3).double()
    training = Training([1, 2, 3], {"a": load}, {"a": steps}, steps, None, {})
    with pyplot() as plt:
        figure = draw_training(plt, training)
        first = figure.axes[0].collections[0].get_paths()[0].vertices
        assert {float(x) for x in first[:, 0]} == {1.0, 3.0}
        save(figure, tmp_path / "x.png")


def test_cells_and_words_of_a_conversation_have_their_experts_colours(tmp_path):
    made = helpers.trace(num_experts=9, side=3, size=(90, 30))
    with pyplot() as plt:
        figure = draw_trace(plt, made, [1])
        image, words = figure.axes
        shown = image.get_images()[0].get_array()
        start = made.image_positions.start
        for index in range(9):
            row, column = divmod(index, 3)
            expert = int(made.expert[1, start + index])
            below = (200, 100, 50) if row == 1 else (10, 20, 30)
            share = 0.55 if row == 1 else 0.2
            if palette.angle(expert) is None:
                expected = [
                    (1 - share) * b + share * c
                    for b, c in zip(below, palette.rgb(expert), strict=True)
                ]
                assert shown[240 * row + 120, 240 * column + 120].tolist() == pytest.approx(
                    expected, abs=2
                )
        numbers = [text.get_text() for text in image.texts]
        assert numbers == [str(int(e)) for e in made.expert[1, start : start + 9]]
        boxes = words.patches[-6:]
        expected = [
            "#eeeeee" if t.kind == "image" else palette.colour(int(made.expert[1, t.position]))
            for t in made.tokens
        ]
        assert colours(boxes) == [colour.lower() for colour in expected]
        save(figure, tmp_path / "x.png")


def test_hostile_and_wide_text_can_be_drawn(tmp_path):
    made = helpers.trace(text="$x_$ \u202e猫\t<b>" * 40)
    with pyplot() as plt:
        save(draw_trace(plt, made, [0]), tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as drawn:
        assert min(drawn.size) > 100


def test_a_deep_model_shows_some_layers_evenly():
    made = helpers.trace(layers=32)
    places = shown_places(made, range(32))
    assert len(places) == MOST_LAYERS
    assert (places[0], places[-1]) == (0, 31)
    assert shown_places(made, [3, 1]) == [3, 1]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".jpg"])
def test_files_of_every_kind(tmp_path, suffix):
    file = tmp_path / "deep" / f"x{suffix}"
    check_suffix(file)
    with pyplot() as plt:
        png = save(draw_load(plt, counts(), [0]), file)
    assert png.startswith(b"\x89PNG")
    assert file.stat().st_size > 1000
    assert [f.name for f in file.parent.iterdir()] == [file.name]


def test_other_suffixes_are_refused():
    with pytest.raises(ValueError, match=r"--output x\.json"):
        check_suffix("x.json")


def test_sixteen_experts_look_different_and_are_read_easily():
    looks = {(palette.colour(k), palette.hatch(k), palette.angle(k)) for k in range(32)}
    assert len(looks) == 32
    for expert in range(8):
        light = palette.luminance(expert)
        ink = 1.0 if palette.ink(expert) == "#ffffff" else 0.0
        high, low = max(light, ink), min(light, ink)
        assert (high + 0.05) / (low + 0.05) > 4.5
