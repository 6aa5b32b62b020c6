"""What a user does with a model opens no connection and unpickles nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SESSION = """
import sys

import torch
from torch import nn

import sparsernn as srn

FORBIDDEN = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "pickle.find_class")
seen = set()


def hook(event, arguments):
    seen.add(event)
    if event in FORBIDDEN:
        raise AssertionError(f"{event}: {arguments}")


sys.addaudithook(hook)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(20, 12)
        self.rnn = nn.LSTM(12, 24, batch_first=True)
        self.head = nn.Linear(24, 20)

    def forward(self, x):
        return self.head(self.rnn(self.emb(x))[0])


folder = sys.argv[1]
model, x = Net(), torch.randint(0, 20, (2, 6))
optimizer = torch.optim.Adam(model.parameters())
sparsifier = srn.Shrink(model, x, to=0.5, steps=4).attach(optimizer)
for _ in range(5):
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
sparsifier.finish()
srn.trace(model.eval(), x).explain()
small = srn.compact(srn.fold(model, [x], to=0.8).model, x)
srn.save(small, f"{folder}/m")
again = srn.load(Net().eval(), f"{folder}/m").eval()
fast = srn.accelerate(again, "int8")
fast(x)
srn.save(fast, f"{folder}/fast")
srn.load(Net().eval(), f"{folder}/fast")(x)
stream = fast.stream(1)
stream.step(torch.tensor([1]))
srn.inspect(small, x).html(f"{folder}/report.html")
srn.export_onnx(small, f"{folder}/m.onnx", x)
srn.from_onnx(f"{folder}/m.onnx")
srn.export_c(small, f"{folder}/c", example=x)
assert "open" in seen
print("done")
"""


@pytest.mark.counts("no_network_no_pickle", 1)
def test_nothing_is_fetched_and_nothing_unpickled(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SESSION, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.strip().endswith("done"), done.stderr[-3000:]
