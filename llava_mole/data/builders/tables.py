"""Real public tables that the document set draws, read from installed packages.

Public domain or CC0 by the packages' own records: US marriages and divorces (CDC), US bachelor's
degrees by field (CC0), US unemployment since 1948 (BLS), penguins (CC0) and the elements from
``bokeh_sampledata``; US employment (BLS), Seattle weather (NOAA), Iowa electricity (EIA) and
Playfair's wheat from ``vega_datasets``. Training and test tables are different ones.
"""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with one label column and numeric columns.

    Attributes:
        title: what it is, as a heading.
        prose: sentences about it for the running text of a page.
        labels: of its rows.
        columns: name -> one finite number a row.
        ordered: whether the rows are points in time, so that a line through them means something.
    """

    title: str
    prose: str
    labels: tuple[str, ...]
    columns: dict[str, tuple[float, ...]]
    ordered: bool


@functools.cache
def tables(split: str) -> tuple[Table, ...]:
    """The tables of ``split``: ``train`` (also for captions) or ``test``.

    Raises:
        ValueError: ``vega_datasets`` or ``bokeh_sampledata`` is not installed.
    """
    assert split in ("train", "test"), split
    try:
        return _train_tables() if split == "train" else _test_tables()
    except ImportError as error:
        raise ValueError(
            f"the document set needs {error.name}: pip install vega_datasets bokeh_sampledata"
        ) from error


def _train_tables() -> tuple[Table, ...]:
    degrees = _bokeh("percent-bachelors-degrees-women-usa.csv").set_index("Year")
    return (
        _table(
            _bokeh("us_marriages_divorces.csv").set_index("Year"),
            "Marriages and divorces in the United States",
            "Marriages, divorces and population of the United States by year, compiled from the "
            "vital statistics of the National Center for Health Statistics.",
        ),
        _table(
            degrees,
            "Bachelor's degrees awarded to women",
            "Share of bachelor's degrees in the United States that were awarded to women, by year "
            "and field of study, in per cent.",
        ),
        _table(
            degrees.T,
            "Women among graduates by field",
            "Share of women among those who were awarded a bachelor's degree, by field of study.",
            ordered=False,
        ),
        _table(
            _vega("us-employment.csv").set_index("month"),
            "Employment in the United States",
            "Monthly employment in the supersectors of the economy, seasonally adjusted, in "
            "thousands, from the Current Employment Statistics of the Bureau of Labor Statistics.",
        ),
        _table(
            _monthly_weather(),
            "Weather in Seattle",
            "Precipitation, temperature and wind speed in Seattle, averaged over each month of "
            "the years 2012 to 2015, from public data of NOAA.",
        ),
    )


def _test_tables() -> tuple[Table, ...]:
    unemployment = _bokeh("unemployment1948.csv").set_index("Year")
    electricity = _vega("iowa-electricity.csv")
    electricity["year"] = electricity["year"].str[:4]
    wheat = _vega("wheat.json").set_index("year")[["wheat", "wages"]]
    elements = _bokeh("elements.csv").set_index("symbol")
    penguins = _bokeh("penguins.csv").dropna().groupby(["island", "species", "sex"])
    measured = penguins.mean(numeric_only=True)
    measured.index = [f"{species[:6]} {sex[0]}" for _, species, sex in measured.index]
    return (
        _table(
            unemployment,
            "Unemployment rate",
            "Monthly unemployment rates of the civilian labour force since 1948, in per cent, as "
            "published by the Bureau of Labor Statistics.",
        ),
        _table(
            unemployment.drop(columns="Annual").T,
            "Unemployment through the year",
            "Unemployment rate in each month of a year, in per cent.",
        ),
        _table(
            electricity.pivot(index="year", columns="source", values="net_generation"),
            "Electricity generation in Iowa",
            "Annual net generation of electricity in the state of Iowa by source, in thousand "
            "megawatt hours, published by the Energy Information Administration.",
        ),
        _table(
            wheat,
            "Price of wheat and wages",
            "Price of the quarter of wheat and weekly wages of a good mechanic, in shillings, "
            "after a chart that William Playfair published in 1822.",
        ),
        _table(
            elements[["atomic mass", "atomic radius", "melting point", "boiling point"]],
            "Chemical elements",
            "Mass, radius, melting and boiling point of the chemical elements.",
            ordered=False,
        ),
        _table(
            measured,
            "Penguins of the Palmer Archipelago",
            "Bill, flipper and body mass of penguins near Palmer Station, Antarctica, averaged by "
            "island, species and sex.",
            ordered=False,
        ),
    )


def _bokeh(name: str) -> "pd.DataFrame":
    # The file, not the package's modules: those build what we do not need on import.
    import bokeh_sampledata
    import pandas as pd

    return pd.read_csv(Path(bokeh_sampledata.__file__).parent / "_data" / name)


def _vega(name: str) -> "pd.DataFrame":
    import pandas as pd
    import vega_datasets

    file = Path(vega_datasets.__file__).parent / "_data" / name
    return pd.read_csv(file) if file.suffix == ".csv" else pd.read_json(file, dtype=str)


def _monthly_weather() -> "pd.DataFrame":
    weather = _vega("seattle-weather.csv")
    return weather.groupby(weather["date"].str[:7]).mean(numeric_only=True)


def _table(frame: "pd.DataFrame", title: str, prose: str, ordered: bool = True) -> Table:
    """Keeps the rows that have a number in every column."""
    import pandas as pd

    frame = frame.apply(pd.to_numeric, errors="coerce").dropna(how="any")
    columns = {
        str(name).replace("_", " "): tuple(float(x) for x in frame[name]) for name in frame.columns
    }
    assert len(frame) >= 6, title
    return Table(title, prose, tuple(str(label) for label in frame.index), columns, ordered)
