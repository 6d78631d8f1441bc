import itertools

import numpy as np
import pytest
from PIL import Image

from llava_mole.reproduce.tiny.measure import SIDE, measure
from llava_mole.reproduce.tiny.questions import (
    DOMAINS,
    LETTERS,
    LEVELS,
    PLACES,
    QUESTIONS,
    values_of,
)
from llava_mole.reproduce.tiny.short import short_of


def drawn(box, colour=(200, 0, 0)):
    """A white image with one filled box (left, top, right, bottom)."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    image.paste(colour, box)
    return image


@pytest.mark.parametrize(
    ("box", "place"),
    [((2, 2, 20, 20), 0), ((40, 2, 60, 20), 1), ((2, 40, 20, 60), 2), ((40, 40, 60, 60), 3)],
)
def test_where_the_ink_is(box, place):
    measured = measure(drawn(box))
    assert values_of([measured], [measured])[0, 0] == place
    assert PLACES[place] == ["upper-left", "upper-right", "lower-left", "lower-right"][place]


def test_measures_of_a_known_image():
    measured = measure(drawn((0, 0, 16, 32)))
    assert measured.covered == pytest.approx(16 * 32 / SIDE**2)
    assert (measured.left, measured.upper) == (1.0, 1.0)
    assert measured.warm == pytest.approx(200)
    share = 16 * 32 / SIDE**2
    assert measured.bright == pytest.approx((1 - share) * 255 + share * 200 / 3)


def test_ink_in_the_middle_is_not_asked_about():
    measured = measure(drawn((20, 20, 44, 44)))
    assert values_of([measured], [measured])[0, 0] == -1


def test_levels_are_quarters_of_the_domain_with_gaps_between():
    images = [measure(drawn((0, 0, width, 40))) for width in range(1, 31)]
    levels = values_of(images, images)[:, 1]
    asked = levels[levels >= 0]
    assert (np.diff(asked) >= 0).all()
    assert set(asked) == {0, 1, 2, 3}
    assert (levels == -1).any()
    assert len(LEVELS) == 4


def test_no_value_has_one_letter_in_two_domains():
    for question in QUESTIONS:
        assert set(question.codes) == set(DOMAINS)
        for code in question.codes.values():
            assert sorted(code) == sorted(LETTERS)
        for value in range(4):
            letters = {question.codes[domain][value] for domain in DOMAINS}
            assert len(letters) == len(DOMAINS)


def test_six_codes_differ_wherever_four_letters_let_them():
    shared = dict.fromkeys(itertools.permutations(DOMAINS, 2), 0)
    for question in QUESTIONS:
        in_short = short_of(question)
        assert set(in_short.text.split()) <= set(question.text.split())
        assert in_short.text != question.text
        for value in range(4):
            full = {domain: question.codes[domain][value] for domain in DOMAINS}
            short = {domain: in_short.codes[f"{domain}-short"][value] for domain in DOMAINS}
            assert len(set(short.values())) == len(DOMAINS)
            assert all(full[domain] != short[domain] for domain in DOMAINS)
            for one, other in shared:
                shared[one, other] += short[one] == full[other]
        for code in in_short.codes.values():
            assert sorted(code) == sorted(LETTERS)
    # Of 16 values; 2 of each value's six letters must meet one of the other three.
    assert set(shared.values()) <= {4, 5, 6}
    assert sum(shared.values()) == 16 * 2
