"""Records as Arrow columns and back, whole batches at a time."""

from collections.abc import Iterator, Sequence

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llava_mole.data.records import Record, Turn

# ``images`` is stored as `datasets.Image` stores it; ``length`` is null where it was not counted.
FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "source": datasets.Value("string"),
        "task": datasets.Value("string"),
        "images": datasets.List(
            {"path": datasets.Value("string"), "bytes": datasets.Value("binary")}
        ),
        "turns": datasets.List(
            {"role": datasets.Value("string"), "content": datasets.Value("string")}
        ),
        "length": datasets.Value("int32"),
        "file": datasets.Value("string"),
        "line": datasets.Value("int64"),
    }
)
SCHEMA: pa.Schema = FEATURES.arrow_schema
# A batch ends after this many rows or bytes, whichever comes first.
BATCH_ROWS = 2_000
BATCH_BYTES = 32 * 2**20


def batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """``records`` in lists of at most `BATCH_ROWS`, fewer where they are large."""
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += sum([len(turn.content) for turn in record.turns])
        size += sum([len(image) for image in record.images])
        if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def to_batch(records: Sequence[Record], lengths: Sequence[int | None] | None) -> pa.RecordBatch:
    """Columns of `SCHEMA` from records.

    Args:
        records: n records.
        lengths: n lengths in tokens, None where unknown; ``None`` for all unknown.
    """
    images = [image for record in records for image in record.images]
    turns = [turn for record in records for turn in record.turns]
    columns = {
        "id": pa.array([record.id for record in records], pa.string()),
        "source": pa.array([record.source for record in records], pa.string()),
        "task": pa.array([record.task for record in records], pa.string()),
        "images": _lists(
            "images",
            [len(record.images) for record in records],
            {
                "path": [None if isinstance(image, bytes) else image for image in images],
                "bytes": [image if isinstance(image, bytes) else None for image in images],
            },
        ),
        "turns": _lists(
            "turns",
            [len(record.turns) for record in records],
            {
                "role": [turn.role for turn in turns],
                "content": [turn.content for turn in turns],
            },
        ),
        "length": pa.nulls(len(records), pa.int32())
        if lengths is None
        else pa.array(lengths, pa.int32()),
        "file": pa.array([record.file for record in records], pa.string()),
        "line": pa.array([record.line for record in records], pa.int64()),
    }
    return pa.record_batch([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _lists(name: str, counts: list[int], values: dict[str, list]) -> pa.ListArray:
    """A column of lists of structs: ``counts`` (n,), each of ``values`` (sum of counts,)."""
    kind = SCHEMA.field(name).type
    fields = list(kind.value_type)
    structs = pa.StructArray.from_arrays(
        [pa.array(values[field.name], field.type) for field in fields], fields=fields
    )
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), structs, type=kind)


def to_record(row: dict) -> Record:
    """One row, as a dictionary of the columns of `SCHEMA`, as a record."""
    return Record(
        row["id"],
        row["source"],
        row["task"],
        tuple([i["path"] if i["bytes"] is None else i["bytes"] for i in row["images"]]),
        tuple([Turn(turn["role"], turn["content"]) for turn in row["turns"]]),
        row["file"],
        row["line"],
    )


def to_records(table: pa.Table) -> Iterator[Record]:
    """The records of a table with the columns of `SCHEMA`."""
    turns = pc.list_flatten(table["turns"])
    contents = zip(
        pc.struct_field(turns, "role").to_pylist(),
        pc.struct_field(turns, "content").to_pylist(),
        strict=True,
    )
    images = pc.list_flatten(table["images"])
    paths = pc.struct_field(images, "path").to_pylist()
    stored = pc.struct_field(images, "bytes")
    if stored.null_count < len(stored):
        paths = [
            path if content is None else content
            for path, content in zip(paths, stored.to_pylist(), strict=True)
        ]
    rows = zip(
        *[table[name].to_pylist() for name in ("id", "source", "task", "file", "line")],
        pc.list_value_length(table["images"]).to_pylist(),
        pc.list_value_length(table["turns"]).to_pylist(),
        strict=True,
    )
    image = 0
    for id, source, task, file, line, num_images, num_turns in rows:
        yield Record(
            id,
            source,
            task,
            tuple(paths[image : image + num_images]),
            tuple([Turn(*next(contents)) for _ in range(num_turns)]),
            file,
            line,
        )
        image += num_images
