"""Recurrent layers in the forms that people give them, through every door: the model's own numbers, or one sentence."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import sparsernn as srn
from low_rank import lora


class WeightDrop(nn.Module):
    """Merity et al., arXiv 1708.02182."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name
        raw = getattr(module, name)
        delattr(module, name)
        module.register_parameter(f"{name}_raw", nn.Parameter(raw.data))
        setattr(module, name, raw.detach().clone())

    def forward(self, x: Tensor) -> Any:
        raw = getattr(self.module, f"{self.name}_raw")
        setattr(self.module, self.name, nn.functional.dropout(raw, 0.5) if self.training else raw.clone())
        return self.module(x)


class Scaled(nn.LSTM):
    """Only what comes behind torch's layer is its own."""

    def forward(self, x: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        y, state = super().forward(x, hx)
        return 0.5 * y, state


ATTACH: dict[str, Callable[[nn.LSTM, str], Any]] = {
    "weight_norm": parametrizations.weight_norm,
    "old weight_norm": nn.utils.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "mask": lambda lstm, name: prune.l1_unstructured(lstm, name, 0.5),
    "lora": lora,
}
KINDS = ["plain", *ATTACH, "weight drop", "derived"]


class Model(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        rnn = (Scaled if kind == "derived" else nn.LSTM)(5, 8, batch_first=True)
        if kind in ATTACH:
            ATTACH[kind](rnn, "weight_hh_l0")
        self.rnn = WeightDrop(rnn, "weight_hh_l0") if kind == "weight drop" else rnn
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


def close(got: Tensor, want: Tensor) -> bool:
    return got.shape == want.shape and bool(torch.isfinite(want).all()) and torch.allclose(got, want, atol=1e-5)


PLAIN_FIRST = {
    "weight_norm": r"parametrize.remove_parametrizations\(model.rnn, 'weight_hh_l0'\)",
    "old weight_norm": r"utils.remove_weight_norm\(model.rnn, 'weight_hh_l0'\)",
    "spectral_norm": r"parametrize.remove_parametrizations\(model.rnn, 'weight_hh_l0'\)",
    "old spectral_norm": r"utils.remove_spectral_norm\(model.rnn, 'weight_hh_l0'\)",
    "orthogonal": r"parametrize.remove_parametrizations\(model.rnn, 'weight_hh_l0'\)",
    "mask": r"prune.remove\(model.rnn, 'weight_hh_l0'\)",
    "lora": r"parametrize.remove_parametrizations\(model.rnn, 'weight_hh_l0'\)",
    "weight drop": r"registering its weights as parameters again",
}
FOLLOWED = {
    "spectral_norm",
    "old spectral_norm",
    "mask",
    "weight drop",
}  # as products of parameters: trace finds readers, compact runs


def says(kind: str, door: str) -> str:
    """The sentence of a cell that is not simply right; "" for right."""
    if kind in ("plain", "derived") or door in ("accelerate", "save", "export_onnx", "deepcopy"):
        return ""
    if door == "compact" and kind in FOLLOWED:
        return ""
    return PLAIN_FIRST[kind]


def traced(model: nn.Module, x: Tensor) -> Tensor:
    found = srn.trace(model, x)
    if any("not plain parameters" in note for note in found.notes):
        raise ValueError("\n".join(found.notes))
    assert "8 units, 8 may go" in found.explain()
    return model(x)


def trained(model: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        sparsifier = srn.GroupLasso(model, x, strength=0.02).attach(optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
        sparsifier.finish()
    return srn.compact(model.eval(), x)(x)


def pruned(model: nn.Module, x: Tensor) -> Tensor:
    srn.Prune(model, x, 0.5, level="unit").finish()
    return srn.compact(model.eval(), x)(x)


def exported(model: nn.Module, x: Tensor, folder: Path) -> Tensor:
    ort = pytest.importorskip("onnxruntime")
    srn.export_onnx(model, folder / "m.onnx", x)
    session = ort.InferenceSession(folder / "m.onnx")
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def loaded(model: nn.Module, x: Tensor, folder: Path, kind: str) -> Tensor:
    srn.save(model, folder / "m.safetensors")
    return srn.load(Model(kind), folder / "m.safetensors").eval()(x)


DOORS: dict[str, Callable[[nn.Module, Tensor, Path, str], Tensor]] = {
    "trace": lambda model, x, folder, kind: traced(model, x),
    "Prune": lambda model, x, folder, kind: pruned(model, x),
    "GroupLasso": lambda model, x, folder, kind: trained(model, x),
    "compact": lambda model, x, folder, kind: srn.compact(model, x)(x),
    "accelerate": lambda model, x, folder, kind: srn.accelerate(model)(x),
    "save": lambda model, x, folder, kind: loaded(model, x, folder, kind),
    "export_onnx": lambda model, x, folder, kind: exported(model, x, folder),
    "deepcopy": lambda model, x, folder, kind: copy.deepcopy(srn.accelerate(model))(x),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_form_goes_through_each_door_or_is_told_what_to_do(kind: str, door: str, tmp_path: Path) -> None:
    with torch.enable_grad():  # as people make them: what is computed has a history
        model, x = Model(kind).eval(), torch.randn(2, 4, 5)
    want, sentence = model(x), says(kind, door)
    if sentence:
        with pytest.raises(ValueError, match=sentence) as caught:
            DOORS[door](model, x, tmp_path, kind)
        assert len(str(caught.value).splitlines()) <= 3
        assert close(model(x), want)  # what raises changes nothing
    else:
        got = DOORS[door](model, x, tmp_path, kind)
        assert close(got, model(x))
        assert close(model(x), want) or door in ("Prune", "GroupLasso")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if says(kind, "Prune") and kind != "weight drop"])
def test_what_the_sentence_says_makes_the_layer_plain(kind: str) -> None:
    model, x = Model(kind).eval(), torch.randn(2, 4, 5)
    want = model(x)
    with pytest.raises(ValueError, match="not plain") as caught:
        srn.Prune(model, x, 0.5, level="unit")
    call = re.search(r"torch\.nn\.utils\.([\w.]+)\(model\.rnn, 'weight_hh_l0'\)", str(caught.value))
    assert call is not None
    undo: Any = nn.utils
    for part in call[1].split("."):
        undo = getattr(undo, part)
    with torch.enable_grad():  # without it torch leaves a buffer where there are several originals
        undo(model.rnn, "weight_hh_l0")
    assert close(model(x), want)
    assert close(pruned(model, x), model(x))
