"""`fold` of single weights and blocks: which go, over all matrices together, and the weights of what is left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .._modules import copied
from ..structure.blocks import BLOCK_HEIGHT, WORD_WIDTH, Tiles, tiles
from ..structure.cells import RecurrentLayer, recurrent_layers
from ..structure.sites import Site
from .folded import Folded
from .folding import PROBE
from .least_squares import with_ridge
from .recording import Record, Recording, warn_of_few
from .rounding import round_matrices
from .supports import least_lost, solved_on

SHAPES = {
    "weight": (1, 1),
    "block": (BLOCK_HEIGHT, 1),
    "word": (BLOCK_HEIGHT, WORD_WIDTH),
}  # rows and columns that go together
# Which matrix loses most is tried in several ways, between what a small change of a layer did to the outputs (0) and
# the change in shares of what the matrix gives (1): of recorded states a layer seems not to need its input.
PARTS = (0.0, 0.5, 1.0)
ROUNDS = 3  # what goes is chosen anew after each third of the way: what is left has other weights then


def fold_weights(
    model: nn.Module,
    weights: Sequence[str],
    level: str,
    record: Record,
    shares: Sequence[float],
    ridge: float,
    bits: int | None = None,
) -> list[Folded]:
    """One model for each of `shares`, with `bits` on grids."""
    recording = record((name, axis) for name in weights for axis in (0, 1))
    most = max((site.moments.size for site in recording.recorder.sites.values()), default=0)
    warn_of_few(recording.recorder, most, "inputs of a matrix")
    work = Thinning(recording, weights, level, ridge, any(share < 1 for share in shares))
    made = []
    for share in shares:
        masks, left, predicted, rows = work.run(share)
        folded = work.written(copied(model), rows)
        if bits is not None:
            round_matrices(folded, recording, weights, ridge, bits)
        change = recording.outputs.change(folded)
        gone = {name: ~mask for name, mask in masks.items()}
        predicted = max(predicted, 0.0) if not math.isnan(change) else math.nan
        made.append(Folded(folded, gone, dict(work.kept), left, predicted**0.5, change**0.5))
    return made


class Matrix:
    """One matrix that may lose weights; float64, rows x inputs, the bias last where it can make up for some."""

    def __init__(self, site: Site, parameters: Mapping[str, Tensor], tile: Tiles, ridge: float, width: int) -> None:
        self.site, self.width = site, width
        rows = site.rows(parameters[site.parameter])
        self.inputs = rows.shape[1]
        moment = site.moments.total / site.moments.count
        if site.bias is None:
            moment = moment[:-1, :-1]
        else:
            # A bias that is infinite (an output that is masked) is so whatever the weights are.
            bias = parameters[site.bias].detach().to("cpu", torch.float64).nan_to_num(posinf=0, neginf=0)
            rows = torch.cat([rows, bias[:, None]], dim=1)
        self.rows_RI, self.moment_II = rows, with_ridge(moment, ridge, self.inputs)
        self.group_R = tile.row_of_blocks() if site.axis == 1 else torch.arange(len(rows))
        self.groups = int(self.group_R.max()) + 1
        self.words = -(-self.inputs // width)
        heights = torch.bincount(self.group_R, minlength=self.groups)
        widths = torch.full((self.words,), width)
        widths[-1] = self.inputs - width * (self.words - 1)
        self.sizes = heights[:, None] * widths  # weights in each block

    def support(self, there: Tensor) -> Tensor:
        """The inputs (groups, inputs and constant) of the blocks in `there` (groups, words)."""
        wide = there.repeat_interleave(self.width, 1)[:, : self.inputs]
        constant = there.new_ones(self.groups, self.rows_RI.shape[1] - self.inputs)
        return torch.cat([wide, constant], 1)

    def scores(self, rows_RI: Tensor, there: Tensor) -> Tensor:
        """Mean square that is lost without each block (groups, words).

        Of single weights what they give is counted: what the rest could make up for takes an inverse for each row,
        and is no better over several rounds. For blocks it is much better.
        """
        if self.groups == len(self.rows_RI) and self.width == 1:
            squares_RI = rows_RI.square() * self.moment_II.diagonal()
            return squares_RI[:, : self.inputs].reshape(self.groups, self.words)
        support = self.support(there)
        return least_lost(rows_RI, self.moment_II, support, self.group_R, self.inputs, self.width)

    def solved(self, there: Tensor) -> Tensor:
        return solved_on(self.rows_RI, self.moment_II, self.support(there), self.group_R)

    def power(self) -> float:
        """Mean square of what the matrix gives, without its bias, summed over rows."""
        rows, moment = self.rows_RI[:, : self.inputs], self.moment_II[: self.inputs, : self.inputs]
        return float(((rows @ moment) * rows).sum())

    def change(self, rows_RI: Tensor) -> float:
        """Mean squared change of what the matrix gives, summed over rows."""
        difference = rows_RI - self.rows_RI
        return float(((difference @ self.moment_II) * difference).sum())

    def mask(self, there: Tensor, like: Tensor) -> Tensor:
        """True where a weight of the parameter is left."""
        mask = torch.ones(like.shape, dtype=torch.bool)
        self.site.put(mask, self.support(there)[self.group_R, : self.inputs])
        return mask

    def write(self, parameters: Mapping[str, Tensor], rows_RI: Tensor) -> None:
        if self.site.bias is not None:
            bias = parameters[self.site.bias].detach()
            bias.copy_(torch.where(bias.isinf(), bias, rows_RI[:, -1].to(bias)))
        self.site.put(parameters[self.site.parameter], rows_RI[:, : self.inputs])


class Thinning:
    """The matrices `weights` of a model, whose operands were recorded."""

    def __init__(
        self,
        recording: Recording,
        weights: Sequence[str],
        level: str,
        ridge: float,
        some_go: bool,
    ) -> None:
        self.model, self.outputs = recording.model, recording.outputs
        height, width = SHAPES[level]
        parameters: dict[str, Tensor] = dict(self.model.named_parameters())
        self.whole = sum(parameters[name].numel() for name in weights)
        layers = recurrent_layers(self.model)
        self.kept: dict[str, str] = {}
        self.matrices: list[Matrix] = []
        for tile in tiles(weights, parameters, layers, height):
            name = tile.parameter
            site = recording.site(name)
            if isinstance(site, str):
                self.kept[name] = site
            elif site.axis == 0 and height > 1:
                self.kept[name] = "its rows are inputs, so that blocks of rows have no support of their own"
            else:
                self.matrices.append(Matrix(site, parameters, tile, ridge, width))
        measured = self._scales(layers) if some_go else [1.0] * len(self.matrices)  # nothing to choose by them
        # A change in shares of what the matrix gives: dear to a layer whose input is little beside its state.
        own = [1 / power if (power := m.power()) > 0 else scale for m, scale in zip(self.matrices, measured)]
        self.scalings = [[(s ** (1 - part)) * (o**part) for s, o in zip(measured, own)] for part in PARTS]

    def _scales(self, layers: Sequence[RecurrentLayer]) -> list[float]:
        """For each matrix what a mean squared change of one in what it gives does to the outputs, in shares of theirs.

        One number for the matrices of a layer and direction, measured: a tenth of their weights goes, alone.
        """
        layer_of = {name: layer.name for layer in reversed(layers) for name in layer.matrices()}
        names = [layer_of.get(m.site.parameter, m.site.parameter) for m in self.matrices]
        found = [1.0] * len(names)
        for name in dict.fromkeys(names):
            mine = [n for n, other in enumerate(names) if other == name]
            there = self._chosen([self.matrices[n] for n in mine], [1.0] * len(mine), 1 - PROBE)
            rows = {n: self.matrices[n].solved(each) for n, each in zip(mine, there)}
            error = sum(self.matrices[n].change(own) for n, own in rows.items())
            other = copied(self.model)
            self._write(other, rows)
            changed = self.outputs.change(other)
            if error > 0 and math.isfinite(changed) and changed > 0:
                for n in mine:
                    found[n] = changed / error
        return found

    def run(self, share: float) -> tuple[dict[str, Tensor], float, float, dict[int, Tensor]]:
        """What is left at `share` of the governed weights: masks, share, predicted change, and the solved matrices.

        Raises ValueError if it can't be had.
        """
        mine = sum(int(m.sizes.sum()) for m in self.matrices)
        wanted = share - (self.whole - mine) / self.whole
        if wanted < 0:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.kept.items())
            raise ValueError(f"fold: to={share:g} can't be reached, at most {1 - mine / self.whole:.3f}: {reasons}.")
        share = wanted * self.whole / max(1, mine)
        there, rows = self._best([self._chosen(self.matrices, scales, share) for scales in self.scalings])
        parameters = dict(self.model.named_parameters())
        masks = {m.site.parameter: m.mask(each, parameters[m.site.parameter]) for m, each in zip(self.matrices, there)}
        left = sum(int(mask.sum()) for mask in masks.values()) + self.whole - mine
        predicted = sum(scale * self.matrices[n].change(rows[n]) for n, scale in enumerate(self.scalings[0]))
        return masks, left / self.whole, predicted, rows

    def _best(self, choices: Sequence[list[Tensor]]) -> tuple[list[Tensor], dict[int, Tensor]]:
        """Of several choices of blocks the one with which the outputs change least, and the solved matrices."""
        best, least = None, math.inf
        for number, there in enumerate(choices):
            if any(all(map(torch.equal, there, other)) for other in choices[:number]):
                continue
            rows = {n: m.solved(each) for n, (m, each) in enumerate(zip(self.matrices, there))}
            changed = self.outputs.change(self.written(copied(self.model), rows))
            if best is None or changed < least:  # NaN where nothing can be measured: the first one then
                best, least = (there, rows), changed
        assert best is not None
        return best

    def written(self, model: nn.Module, rows: Mapping[int, Tensor]) -> nn.Module:
        """`model`, a copy of the one in work, with these matrices."""
        self._write(model, rows)
        return model

    def _write(self, model: nn.Module, rows: Mapping[int, Tensor]) -> None:
        parameters = dict(model.named_parameters())
        for n, own in rows.items():
            self.matrices[n].write(parameters, own)

    @staticmethod
    def _chosen(matrices: Sequence[Matrix], scales: Sequence[float], share: float) -> list[Tensor]:
        """The blocks (groups, words) of each matrix that stay, `share` of all weights together at most."""
        sizes = torch.cat([m.sizes.reshape(-1) for m in matrices])
        there = [torch.ones(m.groups, m.words, dtype=torch.bool) for m in matrices]
        rows = [m.rows_RI for m in matrices]
        for number in range(1, ROUNDS + 1):
            # Every round takes the same part of what is there.
            budget = int(sizes.sum()) * share ** (number / ROUNDS)
            scores = [m.scores(own, each) * d for m, own, each, d in zip(matrices, rows, there, scales)]
            worth = torch.cat([s.reshape(-1) for s in scores]) / sizes
            worth[~torch.cat([each.reshape(-1) for each in there])] = -math.inf  # what is out stays out
            order = torch.argsort(worth, stable=True)
            left = int(sizes.sum()) - sizes[order].cumsum(0)
            gone = torch.zeros(len(sizes), dtype=torch.bool)
            gone[order[: int((left > budget + 1e-6).sum()) + 1]] = bool(budget < int(sizes.sum()))
            parts = gone.split([m.sizes.numel() for m in matrices])
            there = [~part.view(m.groups, m.words) for part, m in zip(parts, matrices)]
            if number < ROUNDS:
                rows = [m.solved(each) for m, each in zip(matrices, there)]
        return there
