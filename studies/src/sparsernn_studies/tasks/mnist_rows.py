"""MNIST row by row: 28 steps of 28 grey values, ten classes; the metric is accuracy on the 10,000 test images.

The files are not ours to hand on; they come from the data folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data import DataError, DataFile, read
from .evaluation import share_right
from .sequences import batches
from .text import wide

_ADDRESS = "https://storage.googleapis.com/cvdf-datasets/mnist/{}.gz"


def _file(name: str, sha256: str, unpacked: str) -> DataFile:
    return DataFile(f"mnist/{name}.gz", sha256, unpacked, _ADDRESS.format(name))


# The archives at the address are packed otherwise than those named here; unpacked they are the same, and that serves.
FILES = {
    "train_images": _file(
        "train-images-idx3-ubyte",
        "71524e2cd1ad2968737f7f2f2ff69cbfc32df8ccddff51593f7cb2d4e0eb5b64",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train_labels": _file(
        "train-labels-idx1-ubyte",
        "fe03b8bd7915f70bf5aa08be480aa413fbd85afcaa58b35d230d335f284fd88e",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "test_images": _file(
        "t10k-images-idx3-ubyte",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "test_labels": _file(
        "t10k-labels-idx1-ubyte",
        "ae18e77e031ccde52407f794d123116439864147d33ac992975f85dd4dc42af6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}


@dataclass(frozen=True)
class Images:
    """Images by rows, uint8 (rows, images, columns), time first, and their classes, int64 (images,)."""

    x_TNI: Tensor
    classes_N: Tensor

    def some(self, count: int) -> Images:
        """The first `count` images; 0: all."""
        return Images(self.x_TNI[:, :count], self.classes_N[:count]) if count else self


def grey(x_TBI: Tensor) -> Tensor:
    """Grey values from 0 to 1."""
    return x_TBI.float() / 255


def load(folder: Path | None) -> tuple[Images, Images]:
    """Training and test images, 60,000 and 10,000, in the original order.

    Raises DataError, which names the file, if one is missing or not the expected one.
    """
    return _images("train", folder), _images("test", folder)


def _images(part: str, folder: Path | None) -> Images:
    pixels_NTI = idx(read(FILES[f"{part}_images"], folder), FILES[f"{part}_images"].path)
    classes_N = idx(read(FILES[f"{part}_labels"], folder), FILES[f"{part}_labels"].path)
    return Images(pixels_NTI.transpose(0, 1).contiguous(), classes_N.long())


def idx(content: bytes, path: str) -> Tensor:
    """The unsigned bytes of an IDX file, in the shape that its big-endian header gives. Raises DataError."""
    axes = content[3] if len(content) > 3 and content[:3] == b"\0\0\x08" else 0
    body = 4 + 4 * axes
    shape = [int.from_bytes(content[4 + 4 * n : 8 + 4 * n], "big") for n in range(axes)]
    size = 1
    for length in shape:
        size *= length
    if not axes or len(content) != body + size:
        raise DataError(f"{path} is not an IDX file of unsigned bytes (header {content[:4].hex()}); fetch it again.")
    return torch.frombuffer(bytearray(content[body:]), dtype=torch.uint8).reshape(shape)


@dataclass(frozen=True)
class ImageClassification:
    """The training objective: mean cross entropy (nats) of the class; the model maps x_TBI to logits_BC.

    Each epoch goes through the images in an order of its own, which depends on `seed` and the epoch alone.
    """

    images: Images
    batch_size: int
    seed: int = 0

    @property
    def epoch(self) -> int:
        """Steps in an epoch."""
        return max(1, len(self.images.classes_N) // self.batch_size)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """The batch of `step`: x_TBI, classes_B."""
        chosen = batches(len(self.images.classes_N), self.batch_size, self.seed, step)[rank::world]
        return grey(self.images.x_TNI[:, chosen]), self.images.classes_N[chosen]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], state: Any) -> tuple[Tensor, Any]:
        """Mean loss of the batch, a scalar; no state is carried on."""
        x_TBI, classes_B = batch
        return nn.functional.cross_entropy(wide(model(x_TBI)), classes_B), None


def image_accuracy(model: nn.Module, images: Images, *, batch: int = 500) -> float:
    """Share of images whose class is right. The model's training mode is left as it was."""
    parts = zip(images.x_TNI.split(batch, 1), images.classes_N.split(batch))
    return share_right(model, (((grey(x_TBI),), classes_B) for x_TBI, classes_B in parts))
