"""What folding costs: CPU seconds and memory of a process of its own, a plain pass of the model beside them."""

from __future__ import annotations

import subprocess
import sys

from .measure import Ceiling, Row

POSITIONS, SEQUENCES, STEPS = 40_000, 50, 20

# Prints: CPU seconds of a plain pass over as many positions and of fold, bytes at most, the share kept.
_PROGRAM = f"""
import resource, time, warnings
import torch
from torch import nn
torch.set_num_threads(1)
warnings.simplefilter("ignore")
import sparsernn as srn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn, self.head = nn.Embedding(65, 128), nn.LSTM(128, 1500, 2), nn.Linear(1500, 65)
    def forward(self, x):
        return self.head(self.rnn(self.embedding(x))[0])

torch.manual_seed(0)
model = Net()
batches = [torch.randint(65, ({STEPS}, {SEQUENCES})) for _ in range({POSITIONS} // {STEPS * SEQUENCES})]
with torch.no_grad():
    model(batches[0])
    start = time.process_time()
    for x in batches[:4]:
        model(x)
    plain = (time.process_time() - start) * len(batches) / 4
start = time.process_time()
folded = srn.fold(model, batches, 0.5, positions={POSITIONS})
whole = time.process_time() - start
kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(plain, whole, kilobytes * (1 if __import__("sys").platform == "darwin" else 1024), folded.share)
"""


def fold(ceiling: Ceiling, rounds: int) -> list[Row]:
    """folding half of an LSTM of 2 x 1500 units away, by 40,000 positions: CPU seconds, memory"""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    plain, whole, most, share = (float(word) for word in done.stdout.split())
    return [
        {
            "work": f"fold, LSTM 2 x 1500, {POSITIONS:,} positions, to .5",
            "share kept": round(share, 3),
            "CPU s": round(whole, 1),
            "one plain pass over all positions, s": round(plain, 1),
            "target, CPU s": 30.0,
            "peak memory with torch, MB": round(most / 1e6),
            "target of memory, MB": 1500,
        }
    ]
