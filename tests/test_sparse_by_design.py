"""Split layers and frequency embeddings go through the whole house: traced, cut, saved, loaded, accelerated."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import sparsernn as srn
from sparsernn.nn import FrequencyEmbedding, SplitGRU, SplitLSTM, SplitRNN
from sparsernn.surgery._container import write_container

SPLIT = {"LSTM": SplitLSTM, "GRU": SplitGRU, "RNN": SplitRNN}
WORDS = 30


class Tagger(nn.Module):
    """Short vectors for rare words, a split layer, tags; `form`: how the sequence reaches the layer."""

    def __init__(self, kind: str = "LSTM", form: str = "padded", *, own_states: bool = False, **options):
        super().__init__()
        self.embedding = FrequencyEmbedding(torch.arange(WORDS) % 7, 8, density=0.5, blocks=4, padding_idx=2)
        self.rnn = SPLIT[kind](8, 12, blocks=3, input_density=0.5, **options)
        self.head = nn.Linear(12 * (2 if self.rnn.bidirectional else 1), 5)
        self.form, self.own_states, self.width, self.lstm = form, own_states, 12, kind == "LSTM"

    def forward(self, x_TB: Tensor) -> Tensor:
        h = self.embedding(x_TB)
        if self.form == "packed":
            lengths = torch.arange(x_TB.shape[1]) % x_TB.shape[0] + 1
            h = pad_packed_sequence(self.rnn(pack_padded_sequence(h, lengths, enforce_sorted=False))[0])[0]
        else:
            rows = self.rnn.num_layers * (2 if self.rnn.bidirectional else 1)
            zeros = h.new_zeros(rows, x_TB.shape[1], self.width)
            state = ((zeros, zeros) if self.lstm else zeros) if self.own_states else None
            h = self.rnn(h, state)[0]
        return self.head(h)


class Tied(nn.Module):
    """The embedding decodes as well."""

    def __init__(self):
        super().__init__()
        self.embedding = FrequencyEmbedding(torch.arange(WORDS) % 7, 8, density=0.5, blocks=4)
        self.first = SplitLSTM(8, 12, blocks=3, input_density=0.5)
        self.last = SplitLSTM(12, 8, blocks=2, input_density=0.75)

    def forward(self, x_TB: Tensor) -> Tensor:
        return self.embedding.logits(self.last(self.first(self.embedding(x_TB))[0])[0])


MODELS = {
    "lstm": lambda: Tagger(),
    "two layers, both directions": lambda: Tagger(num_layers=2, bidirectional=True),
    "gru, packed": lambda: Tagger("GRU", "packed", num_layers=2),
    "lstm, packed, both directions": lambda: Tagger("LSTM", "packed", bidirectional=True),
    "rnn, no bias, own states": lambda: Tagger("RNN", bias=False, own_states=True),
    "lstm, own states": lambda: Tagger(num_layers=2, own_states=True),
    "tied": Tied,
}


def example() -> Tensor:
    return torch.randint(WORDS, (6, 3), generator=torch.Generator().manual_seed(5))


def made(name: str) -> nn.Module:
    torch.manual_seed(1)
    return MODELS[name]().eval()


def with_dead_units(model: nn.Module) -> nn.Module:
    """Every third unit that may go loses its readers."""
    groups = srn.trace(model, example()).groups("unit")
    gone = torch.arange(groups.count) % 3 == 0
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in groups.mask(parameters, gone, ("outgoing",)).items():
            parameters[name].mul_(mask)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_every_unit_has_its_readers_and_dead_ones_go_exactly(name, tmp_path):
    model = with_dead_units(made(name))
    structure = srn.trace(model, example())
    assert all(bool(mask.all()) for mask in structure.removable().values())
    small = srn.compact(model, example())
    lost = [sum(p.numel() for p in m.parameters()) for m in (model, small)]
    assert lost[1] < lost[0] - 50
    for shape in ((6, 3), (2, 1), (9, 5)):
        x = torch.randint(WORDS, shape)
        assert torch.allclose(small.double()(x), model.double()(x), rtol=0, atol=1e-10)
    small.float(), model.float()
    srn.save(small, tmp_path / "small.safetensors")
    again = srn.load(MODELS[name](), tmp_path / "small.safetensors").eval()
    assert torch.equal(again(example()), small(example()))
    twice = srn.load(MODELS[name](), tmp_path / "small.safetensors").double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing more is dead
        assert torch.allclose(srn.compact(twice.eval(), example())(example()), twice(example()), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("cut", [False, True])
def test_accelerated_models_compute_the_same_in_one_call_a_layer(name, cut):
    model = made(name)
    if cut:
        model = srn.compact(with_dead_units(model), example())
    fast = srn.accelerate(model)
    with torch.no_grad():
        for shape in ((6, 3), (9, 5)):
            x = torch.randint(WORDS, shape)
            assert torch.allclose(fast(x), model(x), rtol=0, atol=2e-6)
    assert "components" not in fast.explain()


def test_components_that_somebody_watches_are_accelerated_one_by_one():
    model = made("lstm")
    seen = []
    model.rnn.components[0][1].register_forward_hook(lambda module, args, result: seen.append(result[0].shape))
    fast = srn.accelerate(model)
    assert torch.allclose(fast(example()), model(example()), atol=2e-6) and len(seen) == 2
    assert "rnn.components.0.1.l0" in fast.explain()


def test_constant_gates_of_components_are_folded_saved_and_accelerated(tmp_path):
    model = made("lstm")
    with torch.no_grad():
        for part in model.rnn.layer_components(0):
            part.weight_ih_l0[:2] = 0
            part.weight_hh_l0[:2] = 0
    small = srn.compact(model, example(), gates=True)
    assert type(small.rnn.components[0][0]).__name__ == "GatedLSTM"
    srn.save(small, tmp_path / "small.safetensors")
    again = srn.load(MODELS["lstm"](), tmp_path / "small.safetensors").eval()
    for other in (small, again, srn.accelerate(small)):
        assert torch.allclose(other(example()), model(example()), atol=2e-6)


def test_sparsifiers_take_units_out_of_components():
    torch.manual_seed(0)
    model = Tagger(num_layers=2)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    sparsifier = srn.Shrink(model, example(), to=0.4, steps=30).attach(optimizer)
    for _ in range(30):
        optimizer.zero_grad()
        model(example()).square().mean().backward()
        optimizer.step()
    sparsifier.finish()
    small = srn.compact(model.eval(), example())
    assert sum(sum(row) for row in small.rnn.hidden_sizes) < 24
    assert torch.allclose(small(example()), model(example()), atol=1e-5)


def test_models_that_hold_their_width_elsewhere_keep_it():
    class Stubborn(Tagger):
        def forward(self, x_TB: Tensor) -> Tensor:
            h = self.rnn(self.embedding(x_TB))[0]
            return self.head(h.view(*x_TB.shape, {"units": 12}["units"]))

    torch.manual_seed(1)
    model = with_dead_units(Stubborn().eval())
    small = srn.compact(model, example())
    assert torch.allclose(small(example()), model(example()), atol=1e-5)
    assert sum(p.numel() for p in small.rnn.parameters()) < sum(p.numel() for p in model.rnn.parameters())


def changed(path: Path, change) -> Path:
    """The file with its JSON header and tensors as `change(header, tensors)` leaves them, checksum renewed."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["sparsernn"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    target = path.with_name("changed.safetensors")
    write_container(target, header, tensors)
    return target


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda h, t: h["modules"]["rnn"].update(segments=[[[0, 4]]]), "modules.rnn.segments"),
        (lambda h, t: h["modules"]["rnn"]["segments"][0].__setitem__(1, [2, 99]), "modules.rnn.segments"),
        (lambda h, t: h["modules"]["rnn"]["segments"][0].__setitem__(1, [2, 7]), "modules.rnn"),
        (lambda h, t: h["modules"]["rnn"].update(input_size=9), "modules.rnn.input_size"),
        (lambda h, t: h["modules"]["rnn"].update({"class": "SplitGRU"}), "modules.rnn.class"),
        (lambda h, t: h["modules"]["embedding"].update(bands=[[1, 2]]), "modules.embedding.bands"),
        (lambda h, t: h["modules"]["embedding"]["bands"][1].__setitem__(1, 50), "modules.embedding.bands"),
        (lambda h, t: t["embedding.rank"].fill_(3), "modules.embedding"),
    ],
)
def test_damaged_files_are_refused_by_field(tmp_path, change, field):
    model = made("lstm")
    srn.save(model, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=field.replace(".", r"\.")):
        srn.load(MODELS["lstm"](), changed(tmp_path / "model.safetensors", change))
