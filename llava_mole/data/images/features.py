"""Features of the frozen vision tower, computed once for each distinct image and memory-mapped.

Worth it where the same small images are shown again and again on slow machines; at the paper's
scale it would take about 3 TB to save 1.3 % of the time.

The file is Arrow: one row an image with its key (real path, page, size and mtime; for an image
inside a record the hash of its bytes) and the raw numbers of its (P, width) features. The schema's
metadata carries shape, dtype and a fingerprint of tower and processor, so features of another tower
are never taken for these. A file that holds more images than a run needs will do.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from PIL import Image
from tqdm import tqdm

from llava_mole.data.images.read import ImageError, load_image, locate
from llava_mole.data.prepared.recordset import RecordSet

_METADATA = b"llava_mole"


@dataclass(frozen=True)
class Embedded:
    """An image inside a record, named rather than held: a set's images may not fit into memory.

    Attributes:
        digest: sha256 of its bytes.
        records: a set that has it.
        row: the record.
        place: number of the image in the record.
    """

    digest: str
    records: RecordSet = field(compare=False, repr=False)
    row: int = field(compare=False)
    place: int = field(compare=False)

    def read(self) -> bytes:
        """The encoded image."""
        return self.records.rows[self.row]["images"][self.place]["bytes"]


# A path or an image inside a record, and the folder that a path starts from.
ImageKey = tuple[str | Embedded, str]


class FeatureCache:
    """Opened features, read by image path.

    Args:
        path: file written by `build_feature_cache`.
        fingerprint: what the features must have been made with; ``None`` accepts any.

    Raises:
        ValueError: not such a file, or one made with something else.
    """

    def __init__(self, path: str | os.PathLike[str], fingerprint: str | None = None) -> None:
        self.path = Path(path)
        try:
            self._open()
        except (OSError, pa.ArrowInvalid, KeyError, TypeError) as error:
            raise ValueError(
                f"feature_cache {self.path}: not a feature file ({error}); delete it"
            ) from None
        if fingerprint is not None and self.info["fingerprint"] != fingerprint:
            raise ValueError(
                f"feature_cache {self.path}: made with another tower or processor; delete it to "
                "make it anew"
            )

    def _open(self) -> None:
        # Kept open: the batches' memory is the map's.
        self._map = pa.memory_map(os.fspath(self.path))
        reader = pa.ipc.open_file(self._map)
        self.info = json.loads(reader.schema.metadata[_METADATA])
        self._dtype = getattr(torch, self.info["dtype"])
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._place = {}
        for number, batch in enumerate(self._batches):
            for row, key in enumerate(batch.column(0).to_pylist()):
                self._place[key] = (number, row)

    def __len__(self) -> int:
        return len(self._place)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps the file for itself.
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._open()

    def holds(self, images: Iterable[ImageKey]) -> bool:
        """Whether features of all ``images``, as they are now, are stored."""
        return all(_key(*image) in self._place for image in images)

    def get(self, image: str | bytes, root: str | os.PathLike[str]) -> torch.Tensor:
        """Features of ``image``, a path below ``root`` or an encoded image; (P, width) as stored.

        Raises:
            ImageError: none are stored for this image as it is now.
        """
        try:
            number, row = self._place[_key(image, root)]
        except KeyError:
            raise ImageError(
                f"image {_shown(image)}: not in feature_cache {self.path}, or changed since; "
                "delete the file to make it anew"
            ) from None
        # Copied: a view would keep a read-only map that torch can't mark as such.
        buffer = bytearray(self._batches[number].column(1)[row].as_buffer())
        return torch.frombuffer(buffer, dtype=self._dtype).reshape(self.info["shape"])


def distinct_images(sets: Iterable[RecordSet]) -> list[ImageKey]:
    """Every image of ``sets`` once: ``(path, root)`` sorted, then those inside records by hash."""
    paths: set[tuple[str, str]] = set()
    embedded: dict[str, ImageKey] = {}
    for records in sets:
        root, first = str(records.image_root), 0
        for block in records.rows.select_columns("images").iter(100):
            for row, images in enumerate(block["images"], start=first):
                for place, image in enumerate(images):
                    if image["bytes"] is None:
                        paths.add((image["path"], root))
                    else:
                        digest = hashlib.sha256(image["bytes"]).hexdigest()
                        embedded.setdefault(digest, (Embedded(digest, records, row, place), root))
            first += len(block["images"])
    return [*sorted(paths), *(embedded[digest] for digest in sorted(embedded))]


def feature_fingerprint(made_with: Any) -> str:
    """Hash of what turns images into features.

    Args:
        made_with: JSON-able description of tower (with a hash of its weights) and processor.
    """
    return hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()


@torch.no_grad()
def build_feature_cache(
    path: str | os.PathLike[str],
    images: Sequence[ImageKey],
    pixels: Callable[[Any], torch.Tensor],
    tower: Callable[[torch.Tensor], torch.Tensor],
    made_with: Any,
    batch_size: int = 8,
    dtype: torch.dtype | None = None,
) -> FeatureCache:
    """The features of ``images``, from ``path`` if they are there, else computed and written.

    Args:
        path: the cache file. It appears only when it is complete.
        images: as from `distinct_images`.
        pixels: RGB image to (3, H, W).
        tower: (n, 3, H, W) to (n, P, width), in eval mode.
        made_with: as for `feature_fingerprint`.
        batch_size: images a call of ``tower``.
        dtype: of the stored numbers; ``None`` keeps the tower's.

    Raises:
        ValueError: ``images`` is empty.
        ImageError: an image can't be read.
    """
    if not images:
        raise ValueError("feature_cache: the data has no images; set feature_cache to null")
    path = Path(path)
    fingerprint = feature_fingerprint(made_with)
    if path.exists():
        # Stale, not precious: it is made from the images whenever they or the tower change.
        try:
            cache = FeatureCache(path, fingerprint)
            if cache.holds(images):
                return cache
            tqdm.write(f"feature_cache {path}: lacks images, or they changed: making it anew")
        except ValueError as error:
            tqdm.write(f"{error}: making it anew")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        _write(partial, images, pixels, tower, fingerprint, batch_size, dtype)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return FeatureCache(path, fingerprint)


def _write(path, images, pixels, tower, fingerprint, batch_size, dtype) -> None:
    writer = None
    with tqdm(total=len(images), desc="vision features", unit="image") as bar:
        for start in range(0, len(images), batch_size):
            block = images[start : start + batch_size]
            features = tower(torch.stack([pixels(_load(*key)) for key in block]))
            features = features.detach().to("cpu", dtype).contiguous()
            if writer is None:
                info = {
                    "fingerprint": fingerprint,
                    "shape": list(features.shape[1:]),
                    "dtype": str(features.dtype).removeprefix("torch."),
                }
                size = features[0].numel() * features.element_size()
                fields = [("key", pa.string()), ("features", pa.binary(size))]
                schema = pa.schema(fields, metadata={_METADATA: json.dumps(info).encode()})
                writer = pa.ipc.new_file(os.fspath(path), schema)
            raw = [row.view(torch.uint8).numpy().tobytes() for row in features]
            keys = [_key(*key) for key in block]
            columns = [pa.array(keys), pa.array(raw, type=schema.field("features").type)]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            bar.update(len(block))
    writer.close()


def _load(image: str | Embedded, root: str) -> Image.Image:
    return load_image(image.read() if isinstance(image, Embedded) else image, root)


def _key(image: str | bytes | Embedded, root: str | os.PathLike[str]) -> str:
    if isinstance(image, Embedded):
        return f"sha256|{image.digest}"
    if isinstance(image, bytes):
        return f"sha256|{hashlib.sha256(image).hexdigest()}"
    location, page = locate(image, root)
    try:
        status = os.stat(location)
    except OSError as error:
        raise ImageError(f"image {image!r}: {error.strerror} in {root}; add the file") from None
    return f"{location}|{status.st_size}|{status.st_mtime_ns}{'' if page is None else f'|{page}'}"


def _shown(image: str | bytes) -> str:
    return f"of {len(image):,} bytes in a record" if isinstance(image, bytes) else repr(image)
