"""What `include` selects: weights under weight norm are never sparsified one by one, so nothing is divided by zero."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import weight_norm as hooked_norm

from sparsernn.learn.l1 import L1
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.prune import Prune


class Net(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 8, batch_first=True), norm(nn.Linear(8, 5))

    def forward(self, x):
        return self.head(self.rnn(x)[0])


NORMS = {"new": parametrizations.weight_norm, "old": hooked_norm}


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scope", ["matrix", "model"])
def test_weights_under_a_norm_stay_finite_whatever_goes(norm, scope):
    torch.manual_seed(0)
    model, x = Net(NORMS[norm]), torch.randn(3, 5, 4)
    with torch.no_grad():  # directions of no length to speak of: the first that magnitude would take
        for name, p in model.named_parameters():
            if name.endswith(("weight_v", "original1")):
                p[:3] *= 1e-6
    before = model(x)
    pruned = Prune(model, x, 0.97, level="weight", include="all", scope=scope).finish()
    assert bool(pruned(x).isfinite().all()) and not torch.equal(pruned(x), before)
    for attached in (
        L1(model, x, strength=1.0, include="all"),
        GroupLasso(model, None, strength=1.0, level="weight", include="all"),
    ):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        attached.attach(optimizer)
        for _ in range(20):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        attached.finish()
        assert bool(model(x).isfinite().all())


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
@pytest.mark.parametrize("norm", NORMS)
def test_a_pattern_of_nothing_but_directions_is_refused(norm):
    with pytest.raises(ValueError, match="under weight_norm, where zeros would be divided by their own norm"):
        Prune(Net(NORMS[norm]), None, 0.5, level="weight", include="head.*")
