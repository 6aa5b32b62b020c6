"""PyTorch's translation tutorial, with and without attention, and Luong's input feeding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..architecture import Architecture, cell, inside, merge, reads, tokens


class EncoderRNN(nn.Module):
    def __init__(self, input_size=11, hidden_size=7):
        super().__init__()
        self.hidden_size = hidden_size
        self.embedding = nn.Embedding(input_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(0.1)

    def forward(self, input):
        return self.gru(self.dropout(self.embedding(input)))


class BahdanauAttention(nn.Module):
    def __init__(self, hidden_size):
        super().__init__()
        self.Wa = nn.Linear(hidden_size, hidden_size)
        self.Ua = nn.Linear(hidden_size, hidden_size)
        self.Va = nn.Linear(hidden_size, 1)

    def forward(self, query, keys):
        scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys)))
        weights = F.softmax(scores.squeeze(2).unsqueeze(1), dim=-1)
        return torch.bmm(weights, keys), weights


class DecoderRNN(nn.Module):
    def __init__(self, hidden_size=7, output_size=11):
        super().__init__()
        self.embedding = nn.Embedding(output_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.out = nn.Linear(hidden_size, output_size)

    def step(self, token, hidden, encoder_outputs):
        output, hidden = self.gru(F.relu(self.embedding(token)), hidden)
        return self.out(output), hidden

    def forward(self, encoder_outputs, encoder_hidden, steps=4):
        token = torch.zeros(encoder_outputs.size(0), 1, dtype=torch.long)
        hidden = encoder_hidden
        outputs = []
        for _ in range(steps):
            logits, hidden = self.step(token, hidden, encoder_outputs)
            outputs.append(logits)
            _, topi = logits.topk(1)
            token = topi.squeeze(-1).detach()
        return F.log_softmax(torch.cat(outputs, dim=1), dim=-1)


class AttnDecoderRNN(DecoderRNN):
    def __init__(self, hidden_size=7, output_size=11):
        super().__init__(hidden_size, output_size)
        self.attention = BahdanauAttention(hidden_size)
        self.gru = nn.GRU(2 * hidden_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(0.1)

    def step(self, token, hidden, encoder_outputs):
        embedded = self.dropout(self.embedding(token))
        context, _ = self.attention(hidden.permute(1, 0, 2), encoder_outputs)
        output, hidden = self.gru(torch.cat((embedded, context), dim=2), hidden)
        return self.out(output), hidden


class Translation(nn.Module):
    def __init__(self, decoder):
        super().__init__()
        self.encoder = EncoderRNN()
        self.decoder = decoder()

    def forward(self, src):
        outputs, hidden = self.encoder(src)
        return self.decoder(outputs, hidden)


class InputFeeding(nn.Module):
    """Luong's decoder: the attentional vector of the last step is a part of the next input."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 4)
        self.encoder = nn.LSTM(4, 6, batch_first=True)
        self.cell = nn.LSTMCell(4 + 5, 7)
        self.wa = nn.Linear(6, 7, bias=False)
        self.wc = nn.Linear(6 + 7, 5)
        self.out = nn.Linear(5, 11)

    def forward(self, src, tgt):
        memory, _ = self.encoder(self.emb(src))
        b = src.size(0)
        h = c = memory.new_zeros(b, self.cell.hidden_size)
        feed = memory.new_zeros(b, 5)
        logits = []
        for t in range(tgt.size(1)):
            h, c = self.cell(torch.cat([self.emb(tgt[:, t]), feed], 1), (h, c))
            scores = torch.bmm(self.wa(memory), h.unsqueeze(2)).squeeze(2)
            context = torch.bmm(F.softmax(scores, 1).unsqueeze(1), memory).squeeze(1)
            feed = torch.tanh(self.wc(torch.cat([context, h], 1)))
            logits.append(self.out(feed))
        return torch.stack(logits, 1)


_words = {
    "encoder.gru.l0": [
        reads("encoder.gru.weight_hh_l0"),
        reads("decoder.gru.weight_hh_l0"),
        reads("decoder.out.weight"),
    ]
}


_attended = [
    *_words["encoder.gru.l0"],
    reads("decoder.attention.Wa.weight"),
    reads("decoder.attention.Ua.weight"),
    reads("decoder.gru.weight_ih_l0", 1, 7),
]


ARCHITECTURES = [
    Architecture(
        "seq2seq_tutorial",
        lambda: Translation(DecoderRNN),
        tokens,
        {"encoder.gru.l0": _words["encoder.gru.l0"], "decoder.gru.l0": _words["encoder.gru.l0"]},
    ),
    Architecture(
        "seq2seq_attention_tutorial",
        lambda: Translation(AttnDecoderRNN),
        tokens,
        {"encoder.gru.l0": _attended, "decoder.gru.l0": _attended},
    ),
    Architecture(
        "input_feeding",
        InputFeeding,
        lambda b, t: (tokens(b, t), tokens(b, 3)),
        merge(
            inside("encoder", 6),
            {"encoder.l0": [reads("wa.weight"), reads("wc.weight")]},
            cell("cell"),
            {"cell": [reads("wa.weight", 0), reads("wc.weight", 1, 6)]},
        ),
    ),
]
