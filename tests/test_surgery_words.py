"""Words and inputs that nobody needs go: rows of zeros share one row, columns that nobody reads are cut."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import sparsernn as srn
from learn_models import SYMBOLS, Tagger, loss_of, tagger, tokens
from sparsernn.surgery.attachments import attachments
from sparsernn.surgery.words import KeptWords

DEAD = [1, 4, 5, 9]


class Padded(Tagger):
    """The embedding has a padding row."""

    def __init__(self):
        super().__init__(hidden=6)
        self.embedding = nn.Embedding(SYMBOLS, 9, padding_idx=2)


def without_words(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        model.embedding.weight[DEAD] = 0
    return model


def every_word() -> torch.Tensor:
    return torch.arange(SYMBOLS).repeat(2, 1)


@pytest.mark.smoke
@pytest.mark.parametrize("make", [lambda: tagger(hidden=6), Padded])
def test_zero_rows_share_one_row_and_word_numbers_stay(make, tmp_path):
    model = without_words(make()).double()
    small = srn.compact(model, tokens(), words=True)
    zeros = len(DEAD) + isinstance(model, Padded)
    assert small.embedding.weight.shape == (SYMBOLS - zeros + 1, 9) and type(small.embedding) is nn.Embedding
    for x in (every_word(), tokens(3), tokens(4, batch=1, time=2)):
        torch.testing.assert_close(small(x), model(x), rtol=0, atol=1e-10)
    srn.save(small, tmp_path / "small.safetensors")
    again = srn.load(make().double(), tmp_path / "small.safetensors")
    assert torch.equal(again(every_word()), small(every_word()))
    assert torch.equal(copy.deepcopy(small)(every_word()), small(every_word()))
    with pytest.raises(IndexError):
        small(torch.tensor([[SYMBOLS]]))
    with pytest.raises(IndexError):
        small(torch.tensor([[-1]]))


def test_a_second_compaction_composes_the_maps():
    model = without_words(tagger(hidden=6)).double()
    first = srn.compact(model, tokens(), words=True)
    with torch.no_grad():
        model.embedding.weight[[0, 7]] = 0
        rows = next(a for a in attachments(first.embedding) if isinstance(a, KeptWords)).rows
        first.embedding.weight[rows[[0, 7]]] = 0
    second = srn.compact(first, tokens(), words=True)
    assert second.embedding.num_embeddings == SYMBOLS - len(DEAD) - 2 + 1
    torch.testing.assert_close(second(every_word()), model(every_word()), rtol=0, atol=1e-10)


def test_the_zero_row_stays_zero_in_training_and_the_optimizer_follows():
    model = without_words(tagger(hidden=6))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    loss_of(model, tokens()).backward()
    optimizer.step()
    without_words(model)
    small = srn.compact(model, tokens(), words=True, optimizer=optimizer)
    for number in range(3):
        optimizer.zero_grad()
        loss_of(small, tokens(number)).backward()
        optimizer.step()
    rows = next(a for a in attachments(small.embedding) if isinstance(a, KeptWords)).rows
    assert not small.embedding.weight[rows[DEAD]].any() and small.embedding.weight[rows[0]].any()
    assert optimizer.state[small.embedding.weight]["exp_avg"].shape == small.embedding.weight.shape


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, 6)
        self.rnn = nn.GRU(6, 6)

    def forward(self, x):
        return nn.functional.linear(self.rnn(self.embedding(x))[0], self.embedding.weight)


def test_words_of_a_tied_decoder_stay():
    model = without_words(Tied()).double()
    with pytest.warns(UserWarning, match="words that are zero stay"):
        small = srn.compact(model, tokens(), words=True)
    assert small.embedding.num_embeddings == SYMBOLS
    torch.testing.assert_close(small(tokens()), model(tokens()))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_columns_of_an_embedding_that_nobody_reads_are_cut(kind, tmp_path):
    model = tagger(kind=kind, hidden=6, bidirectional=True).double()
    with torch.no_grad():
        for name, p in model.rnn.named_parameters():
            if "weight_ih" in name:
                p[:, [0, 3, 8]] = 0
    small = srn.compact(model, tokens())
    assert small.embedding.embedding_dim == 6 and small.rnn.input_size == 6
    torch.testing.assert_close(small(tokens(3)), model(tokens(3)), rtol=0, atol=1e-10)
    srn.save(small, tmp_path / "small.safetensors")
    dense = tagger(kind=kind, hidden=6, bidirectional=True).double()
    assert torch.equal(srn.load(dense, tmp_path / "small.safetensors")(tokens(3)), small(tokens(3)))


def test_a_damaged_map_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one row for each word"):
        KeptWords(torch.tensor([0.0]), None)
    with pytest.raises(ValueError, match="padding"):
        KeptWords(torch.tensor([0, 1]), 2)
    with pytest.raises(ValueError, match="no embedding"):
        KeptWords(torch.tensor([0, 99]), None).attach(nn.Embedding(3, 2))
