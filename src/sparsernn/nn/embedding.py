"""Embeddings that are short for rare words: as many numbers as the words deserve, and no zeros stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..tensors import short
from .protocol import Layer, Misfit, register_layer
from .word_widths import block_sizes, block_widths, widths_by_count


@register_layer
class FrequencyEmbedding(Layer):
    """An embedding whose frequent words use all columns and whose rare words only the first few.

    The columns are split into `blocks` of equal width (the last takes the rest). The first block covers all words,
    the others ever fewer of the most frequent ones (`block_sizes`), so that density x words x embedding_dim numbers
    are stored in all; what a word does not have is zero in its vector. Words of equal width lie side by side in one
    matrix, `band_0` (the widest), `band_1`, ...; forward and backward touch no other number. `reverse` gives the rarest
    words the long vectors: the control experiment.

    - `counts`: how often each word occurs, (words,); word n of the input is entry n.
    - forward: word numbers of any shape -> (..., embedding_dim). The vector of `padding_idx` is zero and gets no
      gradient.
    - `logits(h)`: (..., embedding_dim) -> (..., words), the product with the same matrix, as a tied decoder.

    Source: Demeester et al., arXiv 1808.08720, section 4. Raises ValueError for a density below the share of the
    first block.
    """

    rank: Tensor | None
    band_0: Tensor

    def __init__(
        self,
        counts: Sequence[int] | Tensor,
        embedding_dim: int,
        *,
        density: float,
        blocks: int,
        reverse: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        counts = torch.as_tensor(counts).detach().cpu()
        if counts.dim() != 1 or not len(counts) or counts.is_complex() or bool((counts < 0).any()):
            raise ValueError(f"counts has shape {tuple(counts.shape)}; expected one number, 0 or more, for each word.")
        _check_dim(embedding_dim)
        widths = widths_by_count(counts, embedding_dim, blocks, density, reverse)
        self._make(widths, embedding_dim, padding_idx, device, dtype)
        self.block_sizes = block_sizes(len(counts), embedding_dim, blocks, density)
        self.block_widths = block_widths(embedding_dim, blocks)

    @classmethod
    def from_widths(
        cls,
        widths: Sequence[int] | Tensor,
        embedding_dim: int,
        *,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """An embedding in which word n uses the first widths[n] columns, 0 to embedding_dim."""
        widths = torch.as_tensor(widths).detach().cpu()
        _check_dim(embedding_dim)
        whole = widths.dim() == 1 and len(widths) > 0 and not widths.is_floating_point() and widths.dtype != torch.bool
        if not whole or not 0 <= int(widths.min()) <= int(widths.max()) <= embedding_dim:
            raise ValueError(f"widths: expected a whole number from 0 to {embedding_dim} for each word.")
        made = cls.__new__(cls)
        made._make(widths.long(), embedding_dim, padding_idx, device, dtype)
        found = sorted(set(widths.tolist()) - {0} | {embedding_dim})
        made.block_widths = tuple(b - a for a, b in zip([0, *found], found))
        made.block_sizes = tuple(int((widths >= end).sum()) for end in found)
        return made

    @classmethod
    def from_dense(cls, embedding: nn.Embedding, widths: Sequence[int] | Tensor) -> Self:
        """`embedding` with the first widths[n] columns of word n; what lies beyond them is left out."""
        weight = embedding.weight
        padding = embedding.padding_idx
        made = cls.from_widths(
            widths, embedding.embedding_dim, padding_idx=padding, device=weight.device, dtype=weight.dtype
        )
        if len(weight) != made.num_embeddings:
            raise ValueError(f"widths has {made.num_embeddings} entries, the embedding has {len(weight)} words.")
        with torch.no_grad():
            for words, band in made._words_by_band():
                band.copy_(weight[words.to(weight.device), : band.shape[1]])
        return made.train(embedding.training)

    def _make(
        self, widths: Tensor, embedding_dim: int, padding_idx: int | None, device: Any, dtype: torch.dtype | None
    ) -> None:
        super().__init__()
        words = len(widths)
        if padding_idx is not None:
            if not -words <= padding_idx < words:
                raise ValueError(f"padding_idx is {padding_idx}; expected a word number below {words}.")
            padding_idx %= words
        self.num_embeddings, self.padding_idx = words, padding_idx
        self.empty_columns = embedding_dim - int(widths.max())  # that no word has
        order = torch.argsort(widths, descending=True, stable=True)
        rank = torch.empty(words, dtype=torch.int32)
        rank[order] = torch.arange(words, dtype=torch.int32)
        self.padding_rank = None if padding_idx is None else int(rank[padding_idx])
        # A vocabulary that is sorted already needs no table of ranks.
        in_order = bool((order == torch.arange(words)).all())
        self.register_buffer("rank", None if in_order else rank.to(device))
        sizes = torch.unique_consecutive(widths[order], return_counts=True)
        for n, (width, size) in enumerate(zip(*(part.tolist() for part in sizes))):
            self.register_parameter(f"band_{n}", nn.Parameter(torch.empty(size, width, device=device, dtype=dtype)))
        self.reset_parameters()

    @property
    def bands(self) -> list[Tensor]:
        """The matrices (words of one width, width), the widest first."""
        return list(self.parameters())

    @property
    def embedding_dim(self) -> int:
        """Columns of the vectors that are handed out."""
        return self.band_0.shape[1] + self.empty_columns

    def reset_parameters(self) -> None:
        """Normal with variance 1, as torch.nn.Embedding; the padding vector zero."""
        with torch.no_grad():
            for start, band in self._started():
                nn.init.normal_(band)
                if (padding := self._padding(start, len(band))) is not None:
                    band[padding] = 0

    def forward(self, input: Tensor) -> Tensor:
        """Vectors (..., embedding_dim) of word numbers of any shape."""
        flat = input.reshape(-1)
        number = flat if self.rank is None else self.rank.index_select(0, flat)
        if len(self._parameters) == 1:
            found = F.embedding(number, self.band_0, self._padding(0, self.num_embeddings))
            return F.pad(found, (0, self.empty_columns)).view(*input.shape, self.embedding_dim)
        # Sorted by rank, the words of one band lie side by side.
        number, order = torch.sort(number)
        starts = [start for start, _ in self._started()]
        inner = torch.tensor(starts[1:], dtype=number.dtype, device=number.device)
        cuts = [0, *torch.searchsorted(number, inner).tolist(), len(number)]
        dim, rows = self.embedding_dim, []
        for (start, band), a, b in zip(self._started(), cuts, cuts[1:]):
            found = F.embedding(number[a:b] - start, band, self._padding(start, len(band)))
            rows.append(F.pad(found, (0, dim - band.shape[1])))
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return torch.cat(rows).index_select(0, back).view(*input.shape, dim)

    def logits(self, h: Tensor) -> Tensor:
        """(..., embedding_dim) -> (..., words): h times the transposed embedding, band by band."""
        if h.shape[-1] != self.embedding_dim:
            raise ValueError(f"logits: got width {h.shape[-1]}, expected embedding_dim = {self.embedding_dim}.")
        found = torch.cat([F.linear(h[..., : band.shape[1]], band) for band in self.bands], -1)
        return found if self.rank is None else found.index_select(-1, self.rank)

    def to_dense(self) -> nn.Embedding:
        """The same vectors as a torch.nn.Embedding, zeros stored."""
        weight = self.band_0.new_zeros(self.num_embeddings, self.embedding_dim)
        with torch.no_grad():
            for words, band in self._words_by_band():
                weight[words, : band.shape[1]] = band
        dense = nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=self.padding_idx)
        return dense.train(self.training)

    def widths(self) -> Tensor:
        """Columns of each word, int64 (words,), on the CPU."""
        found = torch.empty(self.num_embeddings, dtype=torch.long)
        for words, band in self._words_by_band():
            found[words.cpu()] = band.shape[1]
        return found

    def config(self) -> dict[str, Any]:
        """Words and columns of each band, the widest first."""
        return {"bands": [list(band.shape) for band in self.bands]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], dense: nn.Module) -> Self:
        """An embedding with these bands for the place of `dense`; Misfit for bands that are none."""
        new = cls._own(dense)._copied()
        bands: Any = config.get("bands")
        whole = isinstance(bands, list) and all(
            isinstance(band, list) and [type(part) for part in band] == [int, int] for band in bands
        )
        if not whole or [band[0] for band in bands] != [len(band) for band in new.bands]:
            raise Misfit("bands", f"got {short(bands)}, expected words and columns of {len(new.bands)} bands.")
        for n, ((_, width), band) in enumerate(zip(bands, new.bands)):
            if not min(1, band.shape[1]) <= width <= band.shape[1]:
                raise Misfit(f"bands[{n}]", f"got {width} columns, expected at most {band.shape[1]}.")
        if any(a[1] < b[1] for a, b in pairwise(bands)):
            raise Misfit("bands", "a band is wider than the one before it.")
        return new._empty({f"band_{n}": tuple(b) for n, b in enumerate(bands)} | {"rank": (new.num_embeddings,)})

    def check_tensors(self) -> None:
        """Raise ValueError unless the buffer `rank` names each place once."""
        if self.rank is not None and not torch.equal(
            self.rank.sort().values.cpu(), torch.arange(self.num_embeddings, dtype=torch.int32)
        ):
            raise ValueError(f"rank does not name each of {self.num_embeddings} words once.")

    def extra_repr(self) -> str:
        """Words, columns, the share of numbers that are stored, and the number of bands."""
        stored = sum(band.numel() for band in self.bands)
        density = stored / (self.num_embeddings * self.embedding_dim)
        return f"{self.num_embeddings}, {self.embedding_dim}, density={density:.4g}, bands={len(self.bands)}"

    def _started(self) -> Iterator[tuple[int, Tensor]]:
        """(rank of its first word, matrix) of each band."""
        start = 0
        for band in self.bands:
            yield start, band
            start += len(band)

    def _padding(self, start: int, size: int) -> int | None:
        """The padding word's number in the band of `size` words from rank `start` on, if it lies there."""
        if self.padding_rank is None or not start <= self.padding_rank < start + size:
            return None
        return self.padding_rank - start

    def _words_by_band(self) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.band_0.device
        words = torch.arange(self.num_embeddings, device=device) if self.rank is None else torch.argsort(self.rank)
        for start, band in self._started():
            yield words[start : start + len(band)], band


def _check_dim(embedding_dim: object) -> None:
    if not isinstance(embedding_dim, int) or isinstance(embedding_dim, bool) or embedding_dim < 1:
        raise ValueError(f"embedding_dim is {embedding_dim!r}; expected a whole number, at least 1.")
