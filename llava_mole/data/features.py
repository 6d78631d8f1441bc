"""Features of the frozen vision tower, computed once for each distinct image and memory-mapped.

Worth it where the same small images are shown again and again on slow machines; at the paper's
scale it would take about 3 TB to save 1.3 % of the time.

The file is Arrow: one row an image with its key (real path, size and mtime) and the raw numbers of
its (P, width) features. The schema's metadata carries shape, dtype and a fingerprint of tower,
processor and images, so features of another tower are never taken for these.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from tqdm import tqdm

from llava_mole.data.arrow import RecordSet
from llava_mole.data.images import ImageError, load_image, resolve

ImageKey = tuple[str, str]
_METADATA = b"llava_mole"


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
                f"feature_cache {self.path}: made with another tower, processor or set of images; "
                "delete it to make it anew"
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

    def get(self, image: str, root: str | os.PathLike[str]) -> torch.Tensor:
        """Features of ``image`` below ``root``, (P, width) in the stored dtype.

        Raises:
            ImageError: none are stored for this image as it is now.
        """
        try:
            number, row = self._place[_key(image, root)]
        except KeyError:
            raise ImageError(
                f"image {image!r}: not in feature_cache {self.path}, or changed since; delete the "
                "file to make it anew"
            ) from None
        # Copied: a view would keep a read-only map that torch can't mark as such.
        buffer = bytearray(self._batches[number].column(1)[row].as_buffer())
        return torch.frombuffer(buffer, dtype=self._dtype).reshape(self.info["shape"])


def distinct_images(sets: Iterable[RecordSet]) -> list[ImageKey]:
    """Every image of ``sets`` once, as sorted ``(path, root)``."""
    keys: set[ImageKey] = set()
    for records in sets:
        root = str(records.image_root)
        for block in records.rows.select_columns("images").iter(1000):
            keys.update((image["path"], root) for images in block["images"] for image in images)
    return sorted(keys)


def feature_fingerprint(images: Sequence[ImageKey], made_with: Any) -> str:
    """Hash of the images (path, size, mtime) and of what turns them into features.

    Args:
        images: ``(path, root)`` pairs.
        made_with: JSON-able description of tower (with a hash of its weights) and processor.
    """
    digest = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode())
    for path, root in images:
        digest.update(_key(path, root).encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


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
        images: ``(path, root)`` pairs as from `distinct_images`.
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
    fingerprint = feature_fingerprint(images, made_with)
    if path.exists():
        try:
            return FeatureCache(path, fingerprint)
        except ValueError as error:
            # Stale, not precious: it is made from the images whenever they or the tower change.
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
            features = tower(torch.stack([pixels(load_image(*key)) for key in block]))
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


def _key(image: str, root: str | os.PathLike[str]) -> str:
    location = resolve(image, root)
    try:
        status = os.stat(location)
    except OSError as error:
        raise ImageError(f"image {image!r}: {error.strerror} in {root}; add the file") from None
    return f"{location}|{status.st_size}|{status.st_mtime_ns}"
