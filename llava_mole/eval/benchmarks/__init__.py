"""The paper's benchmarks, the quickstart's, and question sets of one's own: one file each."""

from llava_mole.eval.benchmarks.benchmark import Benchmark, Rule
from llava_mole.eval.benchmarks.chartqa import CHARTQA
from llava_mole.eval.benchmarks.docvqa import DOCVQA
from llava_mole.eval.benchmarks.ehub import EHUB
from llava_mole.eval.benchmarks.own import own_set
from llava_mole.eval.benchmarks.pathvqa import PATHVQA
from llava_mole.eval.benchmarks.quickstart import QUICKSTART

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in (EHUB, CHARTQA, DOCVQA, PATHVQA, *QUICKSTART)
}

__all__ = ["BENCHMARKS", "Benchmark", "Rule", "own_set"]
