"""What a trained model's routers do: counted, compared, drawn (LLaVA-MoLE, Sec. 4.5).

`count` and `compare` give numbers, `trace` one conversation token by token, `read_training` what
the run itself logged; `Report` writes all of it.
"""

from llava_mole.analysis.routing.choices import (
    Choices,
    choices_of,
    experts_of,
    layers_of,
    places_of,
)
from llava_mole.analysis.routing.comparison import Comparison, compare, mutual_information
from llava_mole.analysis.routing.counts import Counts, count, table
from llava_mole.analysis.routing.report import Report, summary
from llava_mole.analysis.routing.samples import KINDS, batches, encoder_of
from llava_mole.analysis.routing.tracing import Trace, trace
from llava_mole.analysis.routing.training import Training, read_training

__all__ = [
    "KINDS",
    "Choices",
    "Comparison",
    "Counts",
    "Report",
    "Trace",
    "Training",
    "batches",
    "choices_of",
    "compare",
    "count",
    "encoder_of",
    "experts_of",
    "layers_of",
    "mutual_information",
    "places_of",
    "read_training",
    "summary",
    "table",
    "trace",
]
