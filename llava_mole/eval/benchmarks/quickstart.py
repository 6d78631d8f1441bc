"""The quickstart's three domains: ``DIR/DOMAIN/test.jsonl``, made by ``data prepare quickstart``.

Small real sets (easy-VQA; charts and tables drawn from published data; histology tiles), so that
the quickstart's summary is an evaluation like any other. Their scores compare with nobody's.
"""

from pathlib import Path

from llava_mole.eval.benchmarks.benchmark import Benchmark, first_folder
from llava_mole.eval.benchmarks.own import own_set

DOMAINS = ("general", "document", "biomedicine")


def _domain(name: str) -> Benchmark:
    def read(folder: Path):
        if not folder.is_file():
            places = (f"quickstart/{name}", name, "")
            folder = first_folder(name, folder, places, "test.jsonl") / "test.jsonl"
        return own.read(folder)

    own = own_set(name)
    return Benchmark(
        name=name,
        title=f"quickstart: {name}",
        read=read,
        rules=own.rules,
        total=name,
        max_new_tokens=8,
        notes=("Small scale: compares with no published figure.",),
    )


QUICKSTART = tuple(map(_domain, DOMAINS))
