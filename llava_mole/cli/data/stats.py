"""examples:
# how many samples, images and tokens a prepared data set has, by source
llava-mole data stats playground/data/prepared/m3it

# a run's whole mixture: lengths for its model, what its weights draw, how well 8 ranks are used
llava-mole data stats --config configs/finetune_mole.yaml --ranks 8 --plot mixture.png
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from llava_mole.cli.arguments import add_data, check_data, encoder_of, file_config, run_config

HELP = "count samples, images and tokens by data set and source"
# Global batches whose layout is tried for --ranks.
_BATCHES = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``stats``."""
    add_data(
        parser, "run config: its model's token lengths, and without FILE its whole mixture", False
    )
    parser.add_argument("--epochs", type=int, default=2, help="epochs of the mixture to count")
    parser.add_argument("--ranks", type=int, help="with --config: how well W ranks would be used")
    parser.add_argument("--plot", metavar="FILE", help="draw it (.png, .svg or .pdf)")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")


def run(arguments: argparse.Namespace) -> int:
    """Prints the figures, and writes what was asked for."""
    check_data(arguments, "data stats")
    if arguments.ranks is not None and not arguments.config:
        raise ValueError("data stats: --ranks needs --config, whose batches it is about")
    if arguments.epochs < 1 or (arguments.ranks is not None and arguments.ranks < 1):
        raise ValueError("data stats: --epochs and --ranks must be >= 1")
    if arguments.plot:
        from llava_mole.analysis.plotting import check_suffix

        check_suffix(arguments.plot, "--plot")
    return (_of_config if arguments.config else _of_file)(arguments)


def _of_file(arguments: argparse.Namespace) -> int:
    from llava_mole.analysis import data_stats
    from llava_mole.data.prepared.recordset import open_dataset

    opened = open_dataset(file_config(arguments), cache_dir=arguments.cache_dir)
    columns = [data_stats.columns(opened)]
    statistics = data_stats.measure(columns[0])
    print(data_stats.table(statistics))
    if columns[0].lengths is None:
        print("no lengths: they are a model's; give --config, or prepare the data set with one")
    _write(arguments, columns, {"datasets": [item.to_dict() for item in statistics]})
    return 0


def _of_config(arguments: argparse.Namespace) -> int:
    import dataclasses

    from llava_mole.analysis import data_stats
    from llava_mole.data.build import open_data

    config = run_config(arguments)
    encoder = encoder_of(config)
    # Bad records are counted here, not judged: 'check' and the run itself do that.
    section = dataclasses.replace(config.data.drawn(), on_bad_record="skip", max_bad_fraction=1.0)
    data = open_data(section, encoder, config.seed, progress=True)
    max_length = config.model.model_max_length
    columns = [
        data_stats.columns(
            records,
            keep,
            lengths,
            data_stats.supervised_share(records, keep, encoder),
        )
        for records, keep, lengths in zip(
            (*data.sets, *data.eval_sets), data.audit.keep, data.audit.lengths, strict=True
        )
    ]
    statistics = [item for own in columns for item in data_stats.measure(own, max_length)]
    print(data_stats.table(statistics))
    print("supervised: estimated from 500 samples of each data set")
    if config.data.overlong == "error":
        print(f"samples of more than {max_length:,} tokens are among the bad (overlong: error)")
    epochs = [data.mixture.counts(epoch) for epoch in range(arguments.epochs)]
    for epoch in range(arguments.epochs):
        print(f"\n{data.mixture.table(epoch)}")
    figures = {
        "datasets": [item.to_dict() for item in statistics],
        "model_max_length": max_length,
        "epochs": epochs,
    }
    if arguments.ranks:
        figures["batching"] = _batching(arguments.ranks, config, data)
    _write(arguments, columns, figures, max_length, epochs[0])
    return 0


def _batching(ranks: int, config: Any, data: Any) -> dict[str, Any]:
    """How well W ranks would be used by the first global batches, printed and as values."""
    import dataclasses

    from llava_mole.data.layout import efficiency
    from llava_mole.train.batches import layout_of

    layout = layout_of(config, ranks)
    batch = config.train.samples_per_step(ranks, config.data.packing)
    order = data.mixture.epoch(0)[: _BATCHES * batch]
    order = order[: max(len(order) // batch, 1) * batch]
    result = efficiency(layout, batch, *data.sizes(order))
    print(
        f"\nbatching on {ranks} rank(s), {layout.describe()}, "
        f"the first {len(order) // batch:,} global batches of {batch}:\n"
        f"  useful tokens                      {result.useful_tokens:.1%}\n"
        f"  slowest rank's tokens over mean    {result.rank_imbalance:.3f}\n"
        f"  slowest rank's images over mean    {result.image_imbalance:.3f}\n"
        f"  micro-steps per optimizer step     {result.micro_steps:.2f}"
    )
    return {"ranks": ranks, "layout": layout.describe(), **dataclasses.asdict(result)}


def _write(arguments, columns, figures, max_length=None, drawn=None) -> None:
    """The files that were asked for, each replaced in one step."""
    if arguments.plot:
        from llava_mole.analysis.data_plot import draw

        draw(columns, arguments.plot, max_length, drawn)
        print(f"picture: {arguments.plot}")
    if arguments.json:
        path = Path(arguments.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, path)
        print(f"figures: {arguments.json}")
