"""Pictures of texts, made on the spot, and what a net reads there."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data import DataError
from ..tasks.sequences import of_one_length
from .sound import part_of
from .words import distance

FONT = "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"  # of Debian's package fonts-wqy-microhei
LATIN = "2345678abcdefhjkmnprstuvwxyz"  # none that looks like another
HEIGHT = 64


class Item(NamedTuple):
    """A text, which kind it is of, and the features (T, F) of a picture of it."""

    text: str
    kind: str
    features: Tensor


def texts(characters: Sequence[str], counts: dict[str, int]) -> Iterator[tuple[str, str, str, Any]]:
    """Part, kind, text and picture: of each kind as many as a part is given; always the same."""
    chinese = [each for each in characters if "\u4e00" <= each <= "\u9fff"]
    for kind, own, shortest, longest, drawn in (("letters", LATIN, 4, 4, captcha), ("Chinese", chinese, 4, 8, printed)):
        source, left = random.Random(kind), dict(counts)
        while any(left.values()):
            text = "".join(source.choices(own, k=source.randint(shortest, longest)))
            if left[part := part_of(text)]:
                left[part] -= 1
                yield part, kind, text, drawn(text)


def captcha(text: str) -> Any:
    """By the package captcha, whose chance is that of the text here."""
    from captcha import image  # pyright: ignore[reportMissingImports]

    own = random.Random(text)
    image.secrets = SimpleNamespace(randbelow=own.randrange, randbits=own.getrandbits, choice=own.choice)
    return image.ImageCaptcha().generate_image(text)


def printed(text: str) -> Any:
    """A line, black on white. DataError without the font."""
    from PIL import Image, ImageDraw, ImageFont

    if not Path(FONT).is_file():
        raise DataError(f"The font {FONT} is not there; it comes with Debian's package fonts-wqy-microhei.")
    font = ImageFont.truetype(FONT, random.Random(text).randrange(24, 41))
    left, top, right, bottom = map(int, font.getbbox(text))
    picture = Image.new("L", (right - left + 12, bottom - top + 12), 255)
    ImageDraw.Draw(picture).text((6 - left, 6 - top), text, 0, font=font)
    return picture


def pixels(picture: Any) -> Any:
    """(1, 1, 64, W) in [0, 1], as ddddocr makes them."""
    from PIL import Image

    width = int(picture.size[0] * HEIGHT / picture.size[1])
    grey = picture.resize((width, HEIGHT), Image.Resampling.LANCZOS).convert("L")
    return np.array(grey, dtype=np.float32)[None, None] / 255


def alike(items: Sequence[Item], rows: int) -> list[tuple[list[Item], Tensor]]:
    """Items, and their features (rows, T, F) or fewer rows, of pictures that are equally wide."""
    batches = of_one_length(items, lambda item: len(item.features), rows)
    return [(batch, torch.stack([item.features for item in batch])) for batch in batches]


def errors(
    model: Callable[[Tensor], Tensor], batches: Sequence[tuple[list[Item], Tensor]], characters: Sequence[str]
) -> dict[str, float]:
    """Of each kind: wrong characters of all, in lower case; as CTC is read, 0 being none."""
    wrong, total = defaultdict[str, int](int), defaultdict[str, int](int)
    for items, x in batches:
        for item, best in zip(items, model(x).argmax(-1).tolist()):
            read = "".join(characters[int(n)] for n, _ in groupby(best) if n).lower()
            wrong[item.kind] += distance(list(map(ord, item.text.lower())), list(map(ord, read)))
            total[item.kind] += len(item.text)
    return {kind: wrong[kind] / total[kind] for kind in total}
