"""Stop a sparse training in the middle and go on from the files: the weights are equal to the bit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import sparsernn as srn

STEPS, STOP = 120, 50


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.lstm = nn.LSTM(16, 32, batch_first=True)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(x))[0])


class Training:
    """Model, optimizer and sparsifier of one run."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Tagger()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        example_inputs = torch.zeros(2, 5, dtype=torch.long)
        self.sparsifier = srn.Shrink(self.model, example_inputs, to=0.25, steps=STEPS).attach(self.optimizer)
        self.parts = {"model": self.model, "optimizer": self.optimizer, "sparsifier": self.sparsifier}

    def train(self, first: int, last: int) -> None:
        for step in range(first, last):
            # The data of a step depend on its number only, so that a resumed run sees the same.
            x = torch.randint(20, (8, 12), generator=torch.Generator().manual_seed(step))
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(x).flatten(0, 1), (x % 4).flatten()).backward()
            self.optimizer.step()

    def save(self, path: str) -> None:
        torch.save({name: part.state_dict() for name, part in self.parts.items()}, path)

    def load(self, path: str) -> None:
        state = torch.load(path, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def main() -> None:
    whole = Training()
    whole.train(0, STEPS)

    stopped = Training()
    stopped.train(0, STOP)
    stopped.save("run.pt")

    resumed = Training()
    resumed.load("run.pt")
    resumed.train(STOP, STEPS)

    pairs = zip(whole.sparsifier.finish().parameters(), resumed.sparsifier.finish().parameters())
    same = all(torch.equal(a, b) for a, b in pairs)
    print(f"{resumed.sparsifier.density():.2f} of the weights are kept; equal to the run without a stop: {same}")


if __name__ == "__main__":
    main()
