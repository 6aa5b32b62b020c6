"""ddddocr: what pictures say, by convolutions, a bidirectional LSTM and a score of each of 8,210 characters."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sparsernn as srn

from ..tasks.sequences import shuffled
from .packages import installed, session
from .pictures import Item, alike, errors, pixels, texts
from .sound import PARTS
from .subject import Bar, Subject

PACKAGE, FILE, CHARACTERS = "ddddocr", "ddddocr/common.onnx", "ddddocr/charsets.py"
UNITS, ROWS, BETWEEN = 512, 12, "227"  # BETWEEN: the file's name of the features of a picture
COUNTS = {"training": 1500, "validation": 250, "test": 250}  # texts of each kind
NOTE = (
    "The recurrent tail alone, 93% of the numbers: an LSTM over the width of the picture, in both directions, and the "
    "scores of all characters. The convolutions before it run as they came, in onnxruntime, and are not timed. There "
    "is no step: a call is the tail of one picture of 160 by 60, and there is no C of it. The error is the mean of "
    "that of letters and digits, without case, and that of Chinese characters."
)


class Tail(nn.Module):
    """Features (B, T, 512) to scores (B, T, characters), of which the first is of none."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(UNITS, UNITS, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * UNITS, characters)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


def apart(ours: Tensor, whole: Tensor) -> Tensor:
    """In what is likely, and in all scores: from the first alone characters that no picture shows learn nothing."""
    return srn.distillation_loss(ours, whole, "logits") + srn.distillation_loss(ours, whole, "values")


def halves(path: str) -> list[Any]:
    """The file in two, each in onnxruntime: pictures to features (T, 1, 512), and features to scores."""
    import onnx

    model = onnx.load(path)
    given, last = model.graph.input[0], model.graph.output[0]
    last.type.tensor_type.ClearField("shape")  # names two sizes, where three come
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(BETWEEN, 1, ["T", 1, UNITS]))
    cut = onnx.utils.Extractor(model)
    ends = ([given.name], [BETWEEN]), ([BETWEEN], [last.name])
    return [session(cut.extract_model(*each).SerializeToString()) for each in ends]


def subjects(folder: Path | None) -> list[Subject]:
    path, characters = installed(PACKAGE, FILE), runpy.run_path(installed(PACKAGE, CHARACTERS))["CHARSET_BETA"]
    (front, back), net, stored = halves(path), Tail(len(characters)), srn.from_onnx(path).state_dict()
    for layer, own in (("LSTM_79", net.lstm), ("Gemm_97", net.head)):
        own.load_state_dict({name: stored[f"{layer}.{name}"] for name in own.state_dict()})
    net.eval()
    parts = {part: list[Item]() for part in PARTS}
    for part, kind, text, picture in texts(characters, COUNTS):
        (features,) = front.run(None, {front.get_inputs()[0].name: pixels(picture)})
        parts[part].append(Item(text, kind, torch.from_numpy(features[:, 0])))
    validation, test = (alike(parts[part], 50) for part in ("validation", "test"))
    training = shuffled([x for _, x in alike(parts["training"], ROWS)])
    one = next(x[:1] for items, x in test if items[0].kind == "letters")

    def own(x: Tensor) -> Tensor:
        """Of one picture, by the file."""
        return torch.from_numpy(back.run(None, {BETWEEN: x.transpose(0, 1).numpy()})[0]).transpose(0, 1)

    def difference() -> float:
        both = [(own(x[:1]), net(x[:1])) for _, x in test]
        return max(float((a - b).abs().max() / a.abs().max()) for a, b in both)

    def judge(model: Any, batches: Any) -> dict[str, float]:
        found = errors(model, batches, characters)
        return {"character error": sum(found.values()) / len(found)} | found

    return [
        Subject(
            PACKAGE, PACKAGE, FILE, "MIT", 4 * sum(p.numel() for p in net.parameters()), net, difference,
            training[:40], training[40:], judge, validation, test,
            Bar("character error", 0.005, at_most=True, over=True), {}, one, lambda model: [],
            {"its own: onnxruntime": lambda: own(one)},
            "captchas of four letters and digits, made by captcha 0.7.1, and printed lines of four to eight of the "
            "file's Chinese characters, in WenQuanYi Micro Hei", NOTE,
            shares={"unit": (0.5, 0.42)}, loss=apart, steps=160, rate=5e-4, call="picture",
        )
    ]  # fmt: skip
