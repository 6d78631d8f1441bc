"""Claims judged by what was measured: pairing by seed, missing rows, controls, adjustment."""

import pytest

from llava_mole.reproduce.claims import Claim, Claims, Comparison, Quantity
from llava_mole.reproduce.judge import judge
from llava_mole.reproduce.types import Row
from tests.reproduce.paper_rows import TINY, measured

MARGINS = {"tiny": dict.fromkeys(TINY, 2.0), "paper": dict.fromkeys(("All", "ChartQA"), 1.0)}
ROWS = [Row("2", None, name, name, {}, "trained") for name in ("mole", "mix", "equal", "base")]


def one(results, *comparisons, **more):
    claims = Claims(MARGINS, {"C": Claim("", "", list(comparisons))}, **more)
    (judgement,) = judge(claims, ROWS, results, "tiny", TINY)
    return judgement


def row(*values, column="general", **more):
    return measured({seed: {column: value} for seed, value in enumerate(values)}, **more)


ABOVE = Comparison("mole", "mix", "above", ["general"])


def test_seeds_are_paired():
    # The seeds differ by far more than the rows: unpaired, nothing would show.
    judgement = one({"mole": row(10.9, 41.1, 71.0), "mix": row(10, 40, 70)}, ABOVE)
    (outcome,) = judgement.outcomes
    assert outcome.difference.each == pytest.approx((0.9, 1.1, 1.0))
    assert judgement.verdict == outcome.verdict == "supported"
    assert judgement.seeds == (3, 3)
    assert outcome.negligible


def test_a_claim_with_seeds_of_its_own_is_judged_by_those_alone():
    def claim():
        return Claim("", "", [ABOVE])

    all_seeds = {"mole": row(50, 51, 52.5), "mix": row(40, 41, 42)}
    fresh = {"mole": row(30, 31, 32.5), "mix": row(40, 41, 42)}
    claims = Claims(MARGINS, {"C": claim(), "D": claim()})
    other, own = judge(claims, ROWS, all_seeds, "tiny", TINY, {"D": fresh})
    assert (other.verdict, own.verdict) == ("supported", "not supported")


def test_only_seeds_of_both_rows_count():
    mole = measured({1: {"general": 50.0}, 2: {"general": 52.0}, 9: {"general": 0.0}})
    mix = measured({2: {"general": 50.0}, 1: {"general": 49.0}, 7: {"general": 99.0}})
    (outcome,) = one({"mole": mole, "mix": mix}, ABOVE).outcomes
    assert (outcome.difference.seeds, outcome.difference.each) == ((1, 2), (1.0, 2.0))


def test_one_seed_falls_back_on_questions():
    (outcome,) = one({"mole": row(60, half=3.0), "mix": row(50, half=4.0)}, ABOVE).outcomes
    assert outcome.difference.kind == "questions"
    assert (outcome.difference.low, outcome.difference.high) == pytest.approx((5, 15))
    assert (outcome.verdict, outcome.said) == ("supported", "supported (one seed)")


def test_a_verdict_of_one_seed_says_so():
    within = Comparison("mix", "base", "below", ["general"])
    two = {"mole": row(60, 61), "mix": row(50, 51.5), "base": row(70)}
    assert one(two, ABOVE).said == "supported"
    assert one(two, within).said == "supported (one seed)"
    assert one(two, ABOVE, within).said == "supported (in part one seed)"
    # Bytes are no sample: one is as good as many.
    memory = {"mole": row(1, extras={0: {"b": 9.0}}), "mix": row(1, extras={0: {"b": 10.0}})}
    less = Comparison("mole", "mix", "below", quantity="bytes")
    assert one(memory, less, quantities={"bytes": Quantity("b")}).said == "supported"


def test_equal_differences_fall_back_on_questions():
    (outcome,) = one({"mole": row(51, 61, half=3.0), "mix": row(50, 60, half=4.0)}, ABOVE).outcomes
    assert outcome.difference.kind == "questions"
    assert (outcome.verdict, outcome.difference.seeds) == ("undecided", (0, 1))


def test_no_seed_in_common_is_not_measured():
    results = {"mole": row(1, 2), "mix": measured({7: {"general": 1.0}})}
    judgement = one(results, ABOVE)
    assert judgement.verdict == "not measured"
    assert judgement.missing == ["mole and mix: no seed in common"]


def test_missing_rows_are_named():
    judgement = one({"mole": row(1, 2)}, ABOVE, Comparison("mole", "base", "above", ["general"]))
    assert (judgement.verdict, judgement.missing) == ("not measured", ["mix", "base"])
    assert judgement.seeds == ()


def test_a_row_without_the_column_is_missing():
    results = {"mole": row(1, 2), "mix": row(1, 2, column="document")}
    assert one(results, ABOVE).missing == ["mix"]


def test_one_refuted_comparison_refutes_the_claim():
    results = {"mole": row(50, 51, 52.5), "mix": row(40, 41, 42), "base": row(60, 61, 62)}
    judgement = one(results, ABOVE, Comparison("mole", "base", "above", ["general"]))
    assert [o.verdict for o in judgement.outcomes] == ["supported", "not supported"]
    assert judgement.verdict == "not supported"
    # Two tails, and two comparisons: the smaller p counts twice each time.
    found = judgement.outcomes[1]
    assert found.against == pytest.approx(4 * found.difference.below(0.0))


def test_margins_are_the_scales():
    results = {"mole": row(49.0, 49.1, 48.9), "mix": row(50, 50, 50)}
    expected = {"above": "not supported", "not_below": "supported", "within": "supported"}
    for expect, found in expected.items():
        comparison = Comparison("mole", "mix", expect, ["general"])
        assert one(results, comparison).verdict == found


def test_the_control_stands_in_the_moles_place():
    results = {"mole": row(50, 51, 52), "equal": row(55, 56.5, 57), "base": row(50, 50, 50)}
    comparison = Comparison("mole", "base", "not_below", ["general"])
    (outcome,) = one(results, comparison, controls={"mole": "equal"}).outcomes
    assert outcome.control.each == pytest.approx((5, 6.5, 7))
    (against_it,) = one(
        results, Comparison("mole", "equal", "above", ["general"]), controls={"mole": "equal"}
    ).outcomes
    assert against_it.control is None


def test_a_control_that_was_not_measured_does_not_make_the_claim_unmeasured():
    results = {"mole": row(50, 51, 52), "mix": row(40, 41, 42.5)}
    judgement = one(results, ABOVE, controls={"mole": "equal"})
    assert (judgement.verdict, judgement.outcomes[0].control) == ("supported", None)


def test_difference_of_differences():
    results = {"mole": row(10, 12), "mix": row(4, 5), "equal": row(3, 4), "base": row(1, 1)}
    comparison = Comparison("mole", "mix", "above", ["general"], beyond=["equal", "base"])
    (outcome,) = one(results, comparison).outcomes
    # (10 - 4) - (3 - 1), (12 - 5) - (4 - 1)
    assert outcome.difference.value == 4
    assert outcome.difference.kind == "questions"


QUANTITY = {"memory": Quantity("saved_bytes", {"mole": 0.61, "mix": 0.83})}
BELOW = Comparison("mole", "mix", "below", quantity="memory")


def test_a_quantity_is_in_per_cent_and_exact_with_one_seed():
    results = {
        "mole": row(extras={0: {"saved_bytes": 60.0}}),
        "mix": row(extras={0: {"saved_bytes": 80.0}}),
    }
    judgement = one(results, BELOW, quantities=QUANTITY)
    (outcome,) = judgement.outcomes
    assert (outcome.difference.value, outcome.difference.kind) == (-25.0, "exact")
    assert (judgement.verdict, judgement.by_print) == ("supported", "supported")


def test_a_quantity_over_seeds_may_have_no_spread():
    extras = {seed: {"saved_bytes": 60.0} for seed in range(3)}
    more = {seed: {"saved_bytes": 50.0} for seed in range(3)}
    (outcome,) = one(
        {"mole": row(extras=extras), "mix": row(extras=more)}, BELOW, quantities=QUANTITY
    ).outcomes
    assert (outcome.difference.low, outcome.difference.high) == pytest.approx((20, 20))
    assert (outcome.verdict, outcome.against) == ("not supported", 0.0)


def test_by_print_needs_both_numbers():
    rows = [Row("2", 1, "mole", "", {"All": 1.0}, "trained"), ROWS[1]]
    claims = Claims(MARGINS, {"C": Claim("", "", [ABOVE])})
    (judgement,) = judge(claims, rows, {}, "tiny", TINY)
    assert judgement.by_print == "not in the paper"


BASELINES = {"one domain each": {"general": "base", "document": "mix"}}


def both(*values):
    return measured({seed: {"general": g, "document": d} for seed, (g, d) in enumerate(values)})


def test_a_mean_is_held_against_each_domains_own_row():
    results = {"mole": both((10, 20), (12, 22)), "base": both((7, 99), (8, 99)),
               "mix": both((99, 15), (99, 16)), "equal": both((9, 19), (10, 21))}  # fmt: skip
    comparison = Comparison("mole", "one domain each", "above", ["general", "document"], mean=True)
    judgement = one(results, comparison, baselines=BASELINES, controls={"mole": "equal"})
    (outcome,) = judgement.outcomes
    # ((10 - 7) + (20 - 15)) / 2, ((12 - 8) + (22 - 16)) / 2
    assert outcome.difference.each == pytest.approx((4, 5))
    assert outcome.control.each == pytest.approx((3, 3.5))
    assert (outcome.pair.column, judgement.verdict) == ("mean", "undecided")


def test_a_mean_lacks_the_rows_of_its_baseline():
    results = {"mole": both((10, 20)), "base": both((7, 99))}
    comparison = Comparison("mole", "one domain each", "above", ["general", "document"], mean=True)
    assert one(results, comparison, baselines=BASELINES).missing == ["mix"]


def test_a_mean_of_one_seed_combines_the_questions_of_all_its_columns():
    results = {"mole": both((10, 20)), "mix": both((8, 16))}
    comparison = Comparison("mole", "mix", "above", ["general", "document"], mean=True)
    (outcome,) = one(results, comparison).outcomes
    # Four arms of 3, each of weight 1/2: their squares add up to 9.
    assert outcome.difference.value == 3
    assert outcome.difference.low == pytest.approx(0)
    assert outcome.difference.kind == "questions"
