"""Rounds and ratios: who runs when, and that a slow machine is divided out."""

import random
import statistics

import pytest

from llava_mole.bench import timing


def test_every_round_runs_all_arms_in_its_own_order():
    calls, prepared = [], []
    times = timing.rounds(
        {"a": 1, "b": 2, "c": 3}, calls.append, 20, "cpu", prepare=prepared.append, turns=2
    )
    assert {name: len(spent) for name, spent in times.items()} == {"a": 20, "b": 20, "c": 20}
    turns = [tuple(calls[start : start + 3]) for start in range(0, len(calls), 3)]
    assert len(turns) == 21 * 2  # with the round that warms up
    assert {frozenset(turn) for turn in turns} == {frozenset((1, 2, 3))}
    assert len(set(turns)) == 6
    assert prepared == calls


def test_times_are_the_mean_over_turns_and_the_first_round_is_dropped(monkeypatch):
    clock = iter(range(1, 100))
    monkeypatch.setattr(timing, "clocked", lambda work, device: (float(next(clock)), 0.5))
    times = timing.rounds({"a": None}, lambda arm: None, 2, "cpu", turns=3)
    assert times == {"a": [(5.0, 0.5), (8.0, 0.5)]}  # 4 5 6 and 7 8 9


def test_ratios_divide_within_a_round():
    generator = random.Random(3)
    mood = [generator.uniform(1, 9) for _ in range(8)]
    own = [generator.uniform(0.9, 1.1) for _ in range(8)]
    arm = [(m * o, 2 * m) for m, o in zip(mood, own, strict=True)]
    times = {"bar": [(m, m) for m in mood], "arm": arm}
    low, middle, high = timing.ratios(times, "bar")["arm"]
    assert middle == pytest.approx(statistics.median(own), rel=1e-12)
    assert low < middle < high
    assert timing.ratios(times, "bar", timing.WALL)["arm"] == pytest.approx((2, 2, 2))
    assert timing.ratios(times, "bar")["bar"] == pytest.approx((1, 1, 1))
    figure = timing.ratio_figure("work", times, "arm", "bar", 1.5, "by hand")
    assert figure.name == "work, arm / bar"
    assert figure.met
    assert figure.quartiles == (low, middle, high)
    assert "wall clock 2.000, by hand" in figure.note


def test_work_is_clocked():
    own, wall = timing.clocked(lambda: sum(range(200_000)), "cpu")
    assert own > 0
    assert wall > 0
