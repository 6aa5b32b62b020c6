"""Reverse a sequence with an encoder and a decoder: units of both go, though the state bridges the two."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import sparsernn as srn

SYMBOLS, STEPS, TIME = 6, 250, 4


class Translator(nn.Module):
    """(source_BT, target_BT) -> logits_BTV and the decoder's last state, which a caller feeds back when sampling."""

    def __init__(self, hidden: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, 12)
        self.encoder = nn.GRU(12, hidden, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * hidden, hidden)
        self.decoder = nn.GRU(12, hidden, batch_first=True)
        self.head = nn.Linear(hidden, SYMBOLS)

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        _, h_n = self.encoder(self.embedding(source))
        start = torch.tanh(self.bridge(torch.cat([h_n[0], h_n[1]], dim=1)))
        h, state = self.decoder(self.embedding(target), start.unsqueeze(0))
        return self.head(h), state


def batch(size: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """A source, what the decoder is given (symbol 0, then the answer so far), and the answer."""
    source = torch.randint(1, SYMBOLS, (size, TIME))
    answer = source.flip(1)
    return source, nn.functional.pad(answer[:, :-1], (1, 0)), answer


def main() -> None:
    torch.manual_seed(0)
    model = Translator()
    example_inputs = batch(4)[:2]
    print(srn.trace(model, example_inputs, carried_states=True).explain())

    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    sparsifier = srn.Shrink(model, example_inputs, to=0.3, steps=STEPS, carried_states=True).attach(optimizer)
    for _ in range(STEPS):
        source, given, answer = batch()
        loss = nn.functional.cross_entropy(model(source, given)[0].flatten(0, 1), answer.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sparsifier.finish()
    model.eval()

    small = srn.compact(model, example_inputs, carried_states=True)
    source, given, answer = batch(256)
    with torch.no_grad():
        right = (small(source, given)[0].argmax(-1) == answer).float().mean().item()
        off = (small(source, given)[0] - model(source, given)[0]).abs().max().item()
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, small))
    print(f"{before:,} -> {after:,} parameters; the directions of the encoder are as wide as each needs:")
    print(small.encoder)
    print(f"{right:.0%} of the symbols are right; the small model is off by {off:.0e}")


if __name__ == "__main__":
    main()
