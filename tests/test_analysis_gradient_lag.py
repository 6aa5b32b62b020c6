"""The gradient over lag against torch's own modules and full Jacobians."""

import json

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from analysis_models import TOKENS, tagger
from sparsernn.analysis.gradient_lag import gradient_lag
from sparsernn.structure.cells import recurrent_layers


def jacobian_norms(module, x_TBI, direction=0, hidden=4):
    """(lags, hidden): 2-norms of d h_last[k] / d x at each lag, averaged over sequences, by torch's own autograd."""

    def last(x):
        out = module(x)[0]
        return out[-1, :, :hidden] if direction == 0 else out[0, :, hidden:]

    jacobian = torch.autograd.functional.jacobian(last, x_TBI)  # B, K, T, B, I
    norms = torch.stack([jacobian[b, :, :, b].norm(dim=-1) for b in range(x_TBI.shape[1])]).mean(0).T
    return norms.flip(0) if direction == 0 else norms


def measured(module, x, **options):
    kinds = {layer.name: ("full",) * layer.hidden_size for layer in recurrent_layers(module)}
    return gradient_lag(module, x, recurrent_layers(module), kinds, **options)


@pytest.mark.smoke
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("bias", [True, False])
def test_norms_equal_the_full_jacobian(cell, bias):
    torch.manual_seed(1)
    module, x_TBI = cell(3, 4, bias=bias, bidirectional=True).double(), torch.randn(6, 2, 3).double()
    found = measured(module, x_TBI)
    for direction, name in enumerate(("l0", "l0_reverse")):
        expected = jacobian_norms(module, x_TBI, direction).mean(1)
        norm = torch.tensor(found[name]["kinds"]["full"]["norm"])
        torch.testing.assert_close(norm, expected.float(), rtol=1e-5, atol=1e-7)
        lag = float((expected * torch.arange(6)).sum() / expected.sum())
        assert found[name]["kinds"]["full"]["mean_lag"] == pytest.approx(lag, rel=1e-5)


def test_second_layer_reads_the_first_ones_output():
    torch.manual_seed(1)
    stack, x_TBI = nn.LSTM(3, 4, 2).double(), torch.randn(6, 2, 3).double()
    top = nn.LSTM(4, 4).double()
    top.load_state_dict({name.replace("l1", "l0"): p for name, p in stack.state_dict().items() if "l1" in name})
    bottom = nn.LSTM(3, 4).double()
    bottom.load_state_dict({name: p for name, p in stack.state_dict().items() if "l0" in name})
    expected = jacobian_norms(top, bottom(x_TBI)[0].detach()).mean(1)
    norm = torch.tensor(measured(stack, x_TBI)["l1"]["kinds"]["full"]["norm"])
    torch.testing.assert_close(norm, expected.float(), rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_relu_projection_and_batch_first_run_like_torch():
    from sparsernn.analysis.gradient_lag import _Step

    torch.manual_seed(1)
    x_TBI = torch.randn(6, 2, 3).double()
    lengths = torch.full((2,), 6)
    for module in (
        nn.RNN(3, 4, nonlinearity="relu"),
        nn.LSTM(3, 4, proj_size=2),
        nn.LSTM(3, 4, proj_size=2, bias=False),
    ):
        module = module.double()
        (layer,) = recurrent_layers(module)
        step = _Step(layer, {name: p.detach() for name, p in module.named_parameters()})
        torch.testing.assert_close(step.sequence(x_TBI, lengths), module(x_TBI)[0].detach())
    batch_first = nn.GRU(3, 4, batch_first=True).double()
    time_first = nn.GRU(3, 4).double()
    time_first.load_state_dict(batch_first.state_dict())
    assert measured(batch_first, x_TBI.transpose(0, 1)) == measured(time_first, x_TBI)


def test_each_packed_sequence_ends_at_its_own_last_step():
    torch.manual_seed(1)
    module, x_TBI = nn.GRU(3, 4, bidirectional=True).double(), torch.randn(6, 2, 3).double()
    packed = pack_padded_sequence(x_TBI, torch.tensor([3, 6]), enforce_sorted=False)
    found = measured(module, packed)
    short = jacobian_norms(module, x_TBI[:3, :1]), jacobian_norms(module, x_TBI[:3, :1], 1)
    long = jacobian_norms(module, x_TBI[:, 1:])[:3], jacobian_norms(module, x_TBI[:, 1:], 1)
    for direction, name in enumerate(("l0", "l0_reverse")):
        if direction == 1:
            # Read backwards, the last step of a sequence is its first; lag 2 is two steps later in time.
            expected = (short[1] + long[1][:3]) / 2
        else:
            expected = (short[0] + long[0]) / 2
        norm = torch.tensor(found[name]["kinds"]["full"]["norm"])
        torch.testing.assert_close(norm, expected.mean(1).float(), rtol=1e-5, atol=1e-7)


def test_a_cell_in_a_loop_is_the_same_as_its_layer():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTMCell(3, 4)

        def forward(self, x):
            state = None
            for step in x:
                state = self.cell(step, state)
            return state[0]

    torch.manual_seed(1)
    loop, layer, x_TBI = Loop(), nn.LSTM(3, 4), torch.randn(6, 2, 3)
    layer.load_state_dict({f"{name}_l0": p for name, p in loop.cell.state_dict().items()})
    one, other = (measured(m, x_TBI)[n]["kinds"]["full"]["norm"] for m, n in ((loop, "cell"), (layer, "l0")))
    assert one == pytest.approx(other, rel=1e-5)


def test_vanilla_units_forget_and_full_units_remember():
    torch.manual_seed(0)
    module = nn.LSTM(3, 8)
    with torch.no_grad():
        module.weight_hh_l0.zero_()
        module.bias_ih_l0[8:16] = 4.0  # the forget gate stays open
        for gate in (0, 1, 2):
            module.weight_ih_l0[gate * 8 : gate * 8 + 4] = 0
    kinds = {"l0": ("vanilla",) * 4 + ("full",) * 4}
    found = gradient_lag(module, torch.randn(40, 4, 3), recurrent_layers(module), kinds, 39)["l0"]["kinds"]
    # Without recurrent weights a vanilla unit sees the present input only.
    assert found["vanilla"]["mean_lag"] == 0
    assert found["full"]["mean_lag"] > 5


def test_limits_and_dead_units():
    torch.manual_seed(0)
    module = nn.GRU(3, 8)
    kinds = {"l0": ("full",) * 5 + ("dead",) * 3}
    found = gradient_lag(module, torch.randn(9, 4, 3), recurrent_layers(module), kinds, 3, units=2, sequences=2)
    assert set(found["l0"]["kinds"]) == {"full"}
    assert found["l0"]["kinds"]["full"]["units"] == 5
    assert len(found["l0"]["kinds"]["full"]["norm"]) == 4
    assert json.loads(json.dumps(found)) == found
    with pytest.raises(ValueError, match="lags=0"):
        gradient_lag(module, torch.randn(9, 4, 3), recurrent_layers(module), kinds, 0)


def test_a_layer_with_equations_of_its_own_is_skipped_with_a_reason():
    from sparsernn.structure.cells import LSTM, Cell, _registry, register_cell

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden_size = 4
            self.weight_ih, self.weight_hh = nn.Parameter(torch.ones(16, 3)), nn.Parameter(torch.ones(16, 4))

        def forward(self, x):
            return x

    register_cell(Own, Cell("Own", LSTM.gates))
    try:
        found = gradient_lag(Own(), torch.randn(5, 2, 3), recurrent_layers(Own()), {"own": ("full",) * 4})
    finally:
        del _registry.cells[Own]
    assert found == {"own": {"skipped": "the equations of Own are not known here"}}


def test_report_runs_the_model_and_leaves_it_alone():
    from sparsernn.analysis.sparsity import inspect

    model = tagger().train()
    state = torch.random.get_rng_state()
    found = inspect(model, TOKENS).gradient_lag(3)
    assert model.training and torch.equal(torch.random.get_rng_state(), state)
    assert len(found["rnn.l0"]["kinds"]["full"]["norm"]) == 4
    assert all(p.grad is None for p in model.parameters())
