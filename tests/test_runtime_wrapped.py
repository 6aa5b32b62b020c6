"""Models in wrappers, under several names, and those that can't be accelerated: the same numbers or a sentence."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import sparsernn as srn
from sparsernn.nn.gated import GatedLSTM
from sparsernn.nn.split import SplitLSTM
from sparsernn.runtime.modules import Accelerated


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        self.rnn, self.head = nn.LSTM(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.front(x))[0])


def compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


def compiled_in_place(model: Net) -> Net:
    model.rnn.compile(backend="eager")
    model.compile(backend="eager")
    return model


def compiled_layer(model: Net) -> Net:
    model.rnn = compiled(model.rnn)
    model.front = compiled(model.front)
    return model


def compiled_forward(model: Net) -> Net:
    model.forward = torch.compile(model.forward, backend="eager")
    model.rnn.forward = torch.compile(model.rnn.forward, backend="eager")
    return model


def parallel_layer(model: Net) -> Net:
    model.head = nn.DataParallel(model.head)
    model.rnn = nn.DataParallel(compiled(model.rnn))
    return model


WRAPPED: dict[str, Callable[[Any], nn.Module]] = {
    "compile": compiled,
    "compile in place": compiled_in_place,
    "compiled layer": compiled_layer,
    "compiled forward": compiled_forward,
    "DataParallel": nn.DataParallel,
    "DataParallel of compile": lambda model: nn.DataParallel(compiled(model)),
    "DataParallel inside": parallel_layer,
    "AveragedModel": AveragedModel,
    "AveragedModel of DataParallel": lambda model: AveragedModel(nn.DataParallel(model)),
    "Sequential": nn.Sequential,
}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    with torch.no_grad():
        yield


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrapped_models_run_on_kernels(wrapper: str) -> None:
    plain, x = Net().eval(), torch.randn(4, 2, 6)
    want = plain(x)
    model = WRAPPED[wrapper](plain).eval()
    fast = srn.accelerate(model)
    layers = [m for m in fast.modules() if isinstance(m, nn.LSTM)]
    assert [isinstance(m, Accelerated) for m in layers] == [True]
    assert "on torch" not in fast.explain()
    assert not any("_orig_mod" in name or "module.module" in name for name, _ in fast.named_parameters())
    for again in (fast, copy.deepcopy(fast)):
        assert torch.allclose(again(x), want, atol=1e-6)
    layers[0].weight_hh_l0.zero_()  # it is the copy's own layer that runs
    assert not torch.allclose(fast(x), want, atol=1e-3)
    assert torch.allclose(model(x), want, atol=1e-6)


def test_an_average_goes_on_in_the_accelerated_copy() -> None:
    model, x = Net().eval(), torch.randn(4, 2, 6)
    average = AveragedModel(model).eval()
    average.update_parameters(model)
    fast = srn.accelerate(average)
    for p in model.parameters():
        p += 0.1
    for m in (average, fast):
        m.update_parameters(model)
    assert torch.allclose(fast(x), average(x), atol=1e-6)


def gated() -> nn.Module:
    dense = nn.LSTM(6, 8)
    dense.weight_ih_l0[:4] = 0
    dense.weight_hh_l0[:4] = 0
    return GatedLSTM.from_dense(dense)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: nn.LSTM(6, 8),
    "gated": gated,
    "split": lambda: SplitLSTM(6, 8, blocks=2),
    "linear": lambda: nn.Linear(6, 8),
    "pruned": lambda: torch.nn.utils.prune.l1_unstructured(nn.LSTM(6, 8), "weight_hh_l0", 0.5),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_of_many_names_is_one_accelerated_layer_under_all(layer: str) -> None:
    class Many(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.rnn, self.a, self.b = nn.GRU(6, 6), inner, nn.ModuleList([inner, nn.Sequential(inner)])
            self.others = [inner]  # not a name, but a reference all the same
            self.run = inner.forward

        def forward(self, x: Tensor) -> list[Tensor]:
            outs = [self.a(x), self.b[0](x), self.b[1](x), self.others[0](x), self.run(x)]
            return [self.rnn(x)[0], *[out if isinstance(out, Tensor) else out[0] for out in outs]]

    model, x = Many(LAYERS[layer]()).eval(), torch.randn(4, 2, 6)
    want = model(x)
    fast = srn.accelerate(model)
    assert isinstance(fast.a, Accelerated)
    assert fast.a is fast.b[0] is fast.b[1][0] is fast.others[0]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(fast(x), want, strict=True))


def test_what_a_model_keeps_on_itself_is_copied_without_its_history() -> None:
    class Keeps(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.last = self.rnn(x)
            self.kept = {"attention": [self.last[0].softmax(-1)]}
            return self.head(self.last[0])

        def train(self, mode: bool = True) -> None:  # type: ignore[override]
            super().train(mode)

        def requires_grad_(self, on: bool = True) -> None:  # type: ignore[override]
            super().requires_grad_(on)

    model, x = Keeps(), torch.randn(4, 2, 6)
    with torch.enable_grad():
        model(x).sum().backward()
    model.eval()
    fast = srn.accelerate(model)
    assert torch.allclose(fast(x), model(x), atol=1e-6)
    assert not any(p.requires_grad for p in fast.parameters())
    assert torch.allclose(srn.accelerate(model, "auto", batches=x)(x), model(x), atol=0.05)


def lazy() -> nn.Module:
    model = Net()
    model.head = nn.LazyLinear(3)
    return model


def quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(Net().eval(), {nn.LSTM}, dtype=torch.qint8)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "scripted": (lambda: torch.jit.script(Net()), r"scripted or traced.*\nAccelerate the model that it was made of"),
    "traced": (lambda: torch.jit.trace(Net().eval(), torch.randn(4, 2, 6)), r"scripted or traced"),
    "quantised": (quantised, r"rnn is quantised by torch .*precision='int8'"),
    "lazy": (lazy, r"head.weight belongs to a lazy module.*\nRun the model once"),
    "lazy RNN head": (lambda: nn.Sequential(nn.LazyLinear(6), nn.GRU(6, 3)), r"0.weight belongs to a lazy module"),
    "meta": (lambda: Net().to("meta"), r"front.0.weight is on the meta device.*\nBuild the model on the CPU"),
    "accelerated": (lambda: srn.accelerate(Net().eval()), r"rnn is accelerated already|front.0 is accelerated already"),
    "half": (lambda: Net().half(), r"rnn.weight_ih_l0 is torch.float16 on cpu.*model.float\(\).cpu\(\)"),
    "double without layers": (lambda: nn.Conv1d(3, 3, 2).double(), r"weight is torch.float64 on cpu.*model.float"),
}


UNFLATTEN = [False] if torch.__version__.startswith("2.6.") else [False, True]  # its exporter can't


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("unflatten", UNFLATTEN)
def test_an_exported_program_is_refused_for_what_it_is(unflatten: bool) -> None:
    """Not for its mode, which can't be set: its `eval` raises."""
    program = torch.export.export(nn.Sequential(nn.LSTM(3, 4)).eval(), (torch.randn(2, 3),))
    model = torch.export.unflatten(program) if unflatten else program.module()
    with pytest.raises(RuntimeError, match=r"(?s)exported graph.*pass the model that it was made from") as caught:
        srn.accelerate(model)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_accelerated_is_said(kind: str) -> None:
    make, sentence = REFUSED[kind]
    with pytest.raises(RuntimeError, match=sentence) as caught:
        srn.accelerate(make().eval())
    assert len(str(caught.value).splitlines()) <= 3
