"""Embeddings with short vectors for rare words: a torch.nn.Embedding with zeros is the oracle."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsernn.nn import FrequencyEmbedding
from sparsernn.nn.word_widths import block_sizes, block_widths, widths_by_magnitude


@st.composite
def embeddings(draw):
    words, dim = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    padding = draw(st.none() | st.integers(-words, words - 1))
    if draw(st.booleans()):
        widths = torch.randint(0, dim + 1, (words,))
        return FrequencyEmbedding.from_widths(widths, dim, padding_idx=padding, dtype=torch.float64)
    counts = torch.randint(0, 8, (words,))
    if draw(st.booleans()):
        counts = counts.sort(descending=True).values
    blocks = draw(st.integers(1, dim))
    least = block_widths(dim, blocks)[0] / dim
    return FrequencyEmbedding(
        counts,
        dim,
        density=least + draw(st.floats(0, 1)) * (1 - least),
        blocks=blocks,
        reverse=draw(st.booleans()),
        padding_idx=padding,
        dtype=torch.float64,
    )


@given(embeddings(), st.sampled_from([(), (5,), (4, 3), (0,)]))
@settings(max_examples=60, deadline=None)
def test_vectors_logits_and_gradients_are_those_of_the_dense_embedding(embedding, shape):
    dense = embedding.to_dense()
    x = torch.randint(embedding.num_embeddings, shape)
    y, expected = embedding(x), dense(x)
    assert y.shape == expected.shape and torch.equal(y, expected)
    h = torch.randn(*shape, embedding.embedding_dim, dtype=torch.float64)
    logits, products = embedding.logits(h), h @ dense.weight.t()
    assert torch.allclose(logits, products, rtol=0, atol=1e-10)
    by_y, by_logits = torch.randn_like(y), torch.randn_like(logits)
    ((y * by_y).sum() + (logits * by_logits).sum()).backward()
    ((expected * by_y).sum() + (products * by_logits).sum()).backward()
    assert dense.weight.grad is not None
    for words, band in embedding._words_by_band():
        assert band.grad is not None
        assert torch.allclose(band.grad, dense.weight.grad[words, : band.shape[1]], rtol=0, atol=1e-10)


@given(embeddings())
@settings(max_examples=40, deadline=None)
def test_what_is_stored_is_what_the_words_have(embedding):
    widths = embedding.widths()
    dense = embedding.to_dense()
    assert sum(p.numel() for p in embedding.parameters()) == int(widths.sum())
    rows = zip(dense.weight, widths.tolist())
    padding = embedding.padding_idx
    assert all(torch.all(row[width:] == 0) for row, width in rows)
    assert all(torch.all(row[:width] != 0) for n, (row, width) in enumerate(zip(dense.weight, widths)) if n != padding)
    again = FrequencyEmbedding.from_dense(dense, widths)
    assert torch.equal(again.to_dense().weight, dense.weight)
    for size, width in zip(embedding.block_sizes, (torch.tensor(embedding.block_widths).cumsum(0)).tolist()):
        assert int((widths >= width).sum()) == size


def test_the_block_sizes_are_those_of_the_authors():
    twenty = "10000 8024 6438 5166 4145 3326 2669 2142 1719 1379 1107 888 713 572 459 369 297 239 192 156"
    assert block_sizes(10_000, 20, 20, 0.25) == tuple(map(int, twenty.split()))
    assert sum(block_sizes(10_000, 20, 20, 0.25)) == 0.25 * 10_000 * 20
    assert block_sizes(10_000, 20, 4, 0.5) == (10_000, 5436, 2956, 1608)
    assert block_widths(20, 4) == (5, 5, 5, 5) and block_widths(10, 4) == (2, 2, 2, 4)


@given(st.integers(1, 3000), st.integers(1, 24), st.floats(0, 1), st.data())
@settings(max_examples=80, deadline=None)
def test_block_sizes_fall_and_reach_the_density(words, dim, share, data):
    blocks = data.draw(st.integers(1, dim))
    widths = block_widths(dim, blocks)
    density = widths[0] / dim + share * (1 - widths[0] / dim)
    sizes = block_sizes(words, dim, blocks, density)
    assert sizes[0] == words and all(a >= b >= 0 for a, b in pairwise(sizes))
    stored = sum(size * width for size, width in zip(sizes, widths))
    # Whole words: each block may be one word short, and the last makes up for it where it is narrow enough.
    assert stored <= density * words * dim + max(widths)
    assert blocks == 1 or stored >= density * words * dim - sum(widths)


def test_frequent_words_have_more_columns_and_in_the_control_fewer():
    counts = torch.tensor([1, 50, 3, 50, 7, 2])
    for reverse in (False, True):
        widths = FrequencyEmbedding(counts, 6, density=0.5, blocks=6, reverse=reverse).widths()
        order = counts.argsort(descending=not reverse, stable=True)
        assert widths[order].tolist() == sorted(widths.tolist(), reverse=True)
        assert widths[order[0]] > widths[order[-1]]


@pytest.mark.parametrize("in_order", [True, False])
def test_training_holds_a_quarter_of_the_dense_bytes(in_order):
    dim = 20 if in_order else 200
    counts = torch.arange(2000, 0, -1) if in_order else torch.randperm(2000)
    sparse = FrequencyEmbedding(counts, dim, density=0.25, blocks=20)
    dense = nn.Embedding(2000, dim)

    def held(module: nn.Module) -> int:
        optimizer = torch.optim.Adam(module.parameters())
        module(torch.randint(2000, (64,))).square().sum().backward()
        optimizer.step()
        tensors = [*module.parameters(), *(p.grad for p in module.parameters()), *module.buffers()]
        tensors += [value for state in optimizer.state.values() for value in state.values() if value.dim()]
        return sum(t.numel() * t.element_size() for t in tensors)

    assert held(sparse) <= 0.26 * held(dense)
    resting = [sum(t.numel() * t.element_size() for t in m.state_dict().values()) for m in (sparse, dense)]
    assert resting[0] <= 0.26 * resting[1]


def test_widths_by_magnitude_keep_the_largest_prefixes():
    torch.manual_seed(0)
    weight = torch.randn(30, 6) * torch.linspace(2, 0.1, 6) * torch.linspace(3, 0.1, 30)[torch.randperm(30), None]
    widths = widths_by_magnitude(weight, 0.4)
    assert 0.35 * 180 <= int(widths.sum()) <= 0.4 * 180 and int(widths.min()) >= 1

    def energy(chosen):
        return sum(float(row[:width].square().sum()) for row, width in zip(weight, chosen.tolist()))

    for _ in range(200):  # no exchange of a column between two words is better
        a, b = torch.randperm(30)[:2].tolist()
        if widths[a] > 1 and widths[b] < 6:
            other = widths.clone()
            other[a] -= 1
            other[b] += 1
            assert energy(other) <= energy(widths) + 1e-5
    assert torch.equal(widths_by_magnitude(weight, 1.0), torch.full((30,), 6))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: FrequencyEmbedding([3, 2], 4, density=0.1, blocks=4), "density is 0.1"),
        (lambda: FrequencyEmbedding([3, 2], 4, density=0.5, blocks=5), "blocks is 5"),
        (lambda: FrequencyEmbedding([3, -2], 4, density=0.5, blocks=4), "counts has shape"),
        (lambda: FrequencyEmbedding([], 4, density=0.5, blocks=4), "counts has shape"),
        (lambda: FrequencyEmbedding([3, 2], 0, density=0.5, blocks=1), "embedding_dim is 0"),
        (lambda: FrequencyEmbedding([3, 2], 4, density=0.5, blocks=4, padding_idx=2), "padding_idx is 2"),
        (lambda: FrequencyEmbedding.from_widths([1, 5], 4), "from 0 to 4"),
        (lambda: FrequencyEmbedding.from_widths([1.0, 2.0], 4), "from 0 to 4"),
        (lambda: FrequencyEmbedding.from_dense(nn.Embedding(3, 4), [1, 2]), "widths has 2 entries"),
        (lambda: FrequencyEmbedding([3, 2], 4, density=0.5, blocks=4).logits(torch.ones(3)), "got width 3"),
        (lambda: widths_by_magnitude(torch.ones(3, 4), 0.1), "density is 0.1"),
    ],
)
def test_bad_input_gets_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        call()
    assert str(caught.value).count("\n") < 3


@pytest.mark.parametrize("number", [-1, 6])
@pytest.mark.parametrize("in_order", [True, False])
def test_word_numbers_outside_the_vocabulary_raise_as_in_torch(number, in_order):
    counts = [9, 7, 5, 3, 2, 1] if in_order else [1, 7, 5, 3, 2, 9]
    with pytest.raises(IndexError):
        FrequencyEmbedding(counts, 4, density=0.5, blocks=4)(torch.tensor([1, number]))
