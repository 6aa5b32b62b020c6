"""Recurrent model classes of published packages, each built as its own documentation builds it, at small sizes.

Packages are imported where they are used, so that `--only` needs the one that it names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

FEATURES, HIDDEN, CLASSES, VOCABULARY = 6, 12, 5, 20


@dataclass(frozen=True)
class Work:
    """A class and how to call it: `inputs(batch, length)` gives the example inputs, first of them for sizes[0]."""

    package: str
    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], Any]
    sizes: tuple[tuple[int, int], ...] = ((3, 7), (1, 4), (5, 9))
    dtype: torch.dtype = torch.float64  # float32 where the class casts its inputs to that
    even: bool = False  # half of each layer's units die, so that all layers keep one width
    carried: bool = False  # the states that it hands out are only fed back into it


def _x(batch: int, length: int, width: int = FEATURES) -> Tensor:
    return torch.randn(batch, length, width)


def _lengths(batch: int, length: int) -> Tensor:
    """Falling lengths, the first the whole one."""
    return torch.tensor([max(1, length - b) for b in range(batch)])


class Tagger(nn.Module):
    """A wrapper of a package and the linear layer that its user puts on it: class scores a time step."""

    def __init__(self, rnn: nn.Module, width: int) -> None:
        super().__init__()
        self.rnn = rnn
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        found = self.rnn(x, *others)
        return self.head(found[0] if isinstance(found, tuple) else found)


class Speller(nn.Module):
    """speechbrain's attentional decoder over one of its encoders, as in its ASR recipes."""

    def __init__(self, rnn_type: str) -> None:
        super().__init__()
        from speechbrain.nnet.RNN import GRU, AttentionalRNNDecoder

        self.encoder = GRU(HIDDEN, input_size=FEATURES, bidirectional=True)
        self.embedding = nn.Embedding(VOCABULARY, FEATURES)
        self.decoder = AttentionalRNNDecoder(rnn_type, "location", HIDDEN, 8, 1, 2 * HIDDEN, FEATURES, channels=4,
                                             kernel_size=5)  # fmt: skip
        self.head = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, x: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        states, _ = self.encoder(x)
        output, _ = self.decoder(self.embedding(tokens), states, lengths)
        return self.head(output)


def _tokens(batch: int, length: int) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length))


def _speech(kind: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from speechbrain.nnet import RNN

        return Tagger(getattr(RNN, kind)(HIDDEN, [3, None, FEATURES], num_layers=2, **options),
                      HIDDEN * (2 if options.get("bidirectional") else 1))  # fmt: skip

    return build


def _crdnn() -> nn.Module:
    from speechbrain.lobes.models.CRDNN import CRDNN
    from speechbrain.nnet.RNN import LSTM

    return CRDNN(input_size=FEATURES * 2, cnn_blocks=1, cnn_channels=[4], inter_layer_pooling_size=[2], rnn_class=LSTM,
                 rnn_layers=2, rnn_neurons=HIDDEN, dnn_blocks=1, dnn_neurons=8)  # fmt: skip


def _policy(**options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import numpy as np
        from gymnasium.spaces import Box, Discrete
        from sb3_contrib.ppo_recurrent import MlpLstmPolicy

        space = Box(-1.0, 1.0, (FEATURES,), dtype=np.float32)
        return MlpLstmPolicy(space, Discrete(CLASSES), lambda _: 1e-3, lstm_hidden_size=HIDDEN, net_arch=[8], **options)

    return build


def _observations(batch: int, length: int) -> Any:
    """One example in which no episode starts, one in which some do: the policy has a branch for each."""
    from sb3_contrib.common.recurrent.type_aliases import RNNStates

    examples = []
    for start in (torch.zeros(batch * length), (torch.arange(batch * length) % 3 == 0).float()):
        states = [(torch.randn(1, batch, HIDDEN), torch.randn(1, batch, HIDDEN)) for _ in range(2)]
        examples.append((torch.randn(batch * length, FEATURES), RNNStates(*states), start, True))
    return examples


def _series(rows: int = 3) -> Any:
    """pytorch-forecasting's data set over a few sines, and nothing else."""
    import pandas
    from pytorch_forecasting import TimeSeriesDataSet

    frame = pandas.DataFrame(
        [{"time": t, "group": str(g), "value": math.sin(0.7 * t + g), "price": math.cos(0.3 * t * (g + 1))}
         for g in range(rows) for t in range(30)]
    )  # fmt: skip
    return TimeSeriesDataSet(frame, time_idx="time", target="value", group_ids=["group"], max_encoder_length=8,
                             max_prediction_length=4, static_categoricals=["group"],
                             time_varying_known_reals=["price"], time_varying_unknown_reals=["value"])  # fmt: skip


def _forecaster(kind: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import pytorch_forecasting

        return getattr(pytorch_forecasting, kind).from_dataset(_series(), hidden_size=HIDDEN, **options)

    return build


def _windows(batch: int, length: int) -> Any:
    loader = _series().to_dataloader(train=True, batch_size=batch, num_workers=0, shuffle=False)
    return (dict(next(iter(loader))[0]),)


def _nixtla(kind: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import neuralforecast.models

        return getattr(neuralforecast.models, kind)(h=3, input_size=7, encoder_hidden_size=HIDDEN, max_steps=1,
                                                    **options)  # fmt: skip

    return build


def _insample(batch: int, length: int) -> Any:
    absent = dict.fromkeys(("futr_exog", "hist_exog", "stat_exog"))
    return ({"insample_y": _x(batch, length, 1), "insample_mask": torch.ones(batch, length, 1), **absent},)


def _deepar() -> nn.Module:
    from gluonts.torch.model.deepar.module import DeepARModel

    return DeepARModel("D", context_length=8, prediction_length=3, hidden_size=HIDDEN, lags_seq=[1, 2, 4],
                       num_parallel_samples=4)  # fmt: skip


def _history(batch: int, length: int) -> Any:
    return {
        "feat_static_cat": torch.zeros(batch, 1, dtype=torch.long),
        "feat_static_real": torch.randn(batch, 1),
        "past_time_feat": torch.randn(batch, 11, 1),
        "past_target": torch.rand(batch, 11) + 0.5,
        "past_observed_values": torch.ones(batch, 11),
        "future_time_feat": torch.randn(batch, 3, 1),
    }


def _allen(kind: str, module: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from importlib import import_module

        encoder = getattr(import_module(f"allennlp_light.modules.{module}"), kind)
        wide = options.get("bidirectional") or kind.startswith("StackedBidirectional")
        return Tagger(encoder(FEATURES, HIDDEN, **options), HIDDEN * (2 if wide else 1))

    return build


def _masked(batch: int, length: int) -> Any:
    return _x(batch, length), torch.arange(length) < _lengths(batch, length)[:, None]


def _flair(**options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from flair.data import Dictionary
        from flair.embeddings import OneHotEmbeddings
        from flair.models import SequenceTagger

        words, tags = Dictionary(), Dictionary(add_unk=False)
        for dictionary, size in ((words, VOCABULARY), (tags, CLASSES)):
            for n in range(size):
                dictionary.add_item(f"item{n}")
        embeddings = OneHotEmbeddings(words, embedding_length=FEATURES)
        return SequenceTagger(embeddings, tags, "pos", hidden_size=HIDDEN, **options)

    return build


class WordModel(nn.Module):
    """The shape of PyTorch's word-language-model example: x_TB and the state in, log probabilities and state out."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.encoder = nn.Embedding(VOCABULARY, HIDDEN)
        self.rnn = nn.LSTM(HIDDEN, HIDDEN, 2, dropout=0.5)
        self.decoder = nn.Linear(HIDDEN, VOCABULARY)
        if tied:
            self.decoder.weight = self.encoder.weight

    def forward(self, tokens: Tensor, hidden: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output, hidden = self.rnn(self.drop(self.encoder(tokens)), hidden)
        decoded = self.decoder(self.drop(output)).view(-1, VOCABULARY)
        return torch.log_softmax(decoded, dim=1), hidden


def _language(batch: int, length: int) -> Any:
    return torch.randint(VOCABULARY, (length, batch)), (torch.zeros(2, batch, HIDDEN), torch.zeros(2, batch, HIDDEN))


class Translator(nn.Module):
    """The shape of PyTorch's sequence-to-sequence tutorial: GRU encoder, additive attention, greedy GRU decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(VOCABULARY, HIDDEN), nn.Embedding(VOCABULARY, HIDDEN)
        self.encoder = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        self.wa, self.ua, self.va = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 1)
        self.decoder = nn.GRU(2 * HIDDEN, HIDDEN, batch_first=True)
        self.out = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        states, hidden = self.encoder(self.source(tokens))
        word, outputs = tokens.new_zeros(len(tokens), 1), []
        for _ in range(5):
            query = hidden.permute(1, 0, 2)
            scores = self.va(torch.tanh(self.wa(query) + self.ua(states))).squeeze(2).unsqueeze(1)
            context = torch.bmm(torch.softmax(scores, dim=-1), states)
            output, hidden = self.decoder(torch.cat((self.target(word), context), dim=2), hidden)
            outputs.append(self.out(output))
            word = outputs[-1].topk(1)[1].squeeze(-1).detach()
        return torch.log_softmax(torch.cat(outputs, dim=1), dim=-1)


def _spoken(batch: int, length: int) -> Any:
    return _x(batch, length), _tokens(batch, 4), _lengths(batch, length) / length


WINDOW = ((3, 7), (1, 7), (5, 7))  # the class fixes the length when it is built
SPEECH, POLICY, SERIES, NIXTLA = "speechbrain", "sb3-contrib", "pytorch-forecasting", "neuralforecast"
ALLEN, FLAIR, TUTORIAL = "allennlp-light", "flair", "torch"
WORKS = (
    Work(SPEECH, "LSTM, bidirectional", _speech("LSTM", bidirectional=True), lambda b, t: (_x(b, t),)),
    Work(SPEECH, "GRU", _speech("GRU"), lambda b, t: (_x(b, t),)),
    Work(SPEECH, "RNN", _speech("RNN"), lambda b, t: (_x(b, t),)),
    Work(SPEECH, "LiGRU, batchnorm", _speech("LiGRU"), lambda b, t: (_x(b, t),)),
    Work(SPEECH, "LiGRU, bidirectional", _speech("LiGRU", bidirectional=True), lambda b, t: (_x(b, t),)),
    Work(SPEECH, "SLiGRU, batchnorm", _speech("SLiGRU"), lambda b, t: (_x(b, t),)),
    Work(SPEECH, "QuasiRNN", _speech("QuasiRNN"), lambda b, t: (_x(b, t),)),
    Work(SPEECH, "AttentionalRNNDecoder, GRU", lambda: Speller("gru"), _spoken, dtype=torch.float32),
    Work(SPEECH, "AttentionalRNNDecoder, LSTM", lambda: Speller("lstm"), _spoken, dtype=torch.float32),
    Work(SPEECH, "CRDNN with LSTM", _crdnn, lambda b, t: (_x(b, t, 2 * FEATURES),)),
    Work(POLICY, "MlpLstmPolicy", _policy(), _observations, dtype=torch.float32),
    Work(POLICY, "MlpLstmPolicy, states carried", _policy(), _observations, dtype=torch.float32, carried=True),
    Work(POLICY, "MlpLstmPolicy, shared LSTM, states carried",
         _policy(shared_lstm=True, enable_critic_lstm=False), _observations, dtype=torch.float32, carried=True),
    Work(SERIES, "RecurrentNetwork, LSTM", _forecaster("RecurrentNetwork", cell_type="LSTM"), _windows),
    Work(SERIES, "RecurrentNetwork, GRU", _forecaster("RecurrentNetwork", cell_type="GRU"), _windows),
    Work(SERIES, "RecurrentNetwork, LSTM, layers alike",
         _forecaster("RecurrentNetwork", cell_type="LSTM"), _windows, even=True),
    Work(SERIES, "TemporalFusionTransformer", _forecaster("TemporalFusionTransformer"), _windows),
    Work(NIXTLA, "LSTM", _nixtla("LSTM"), _insample, WINDOW),
    Work(NIXTLA, "GRU", _nixtla("GRU"), _insample, WINDOW),
    Work(NIXTLA, "LSTM, recurrent", _nixtla("LSTM", recurrent=True), _insample, WINDOW),
    Work(NIXTLA, "DilatedRNN", _nixtla("DilatedRNN", dilations=[[1, 2]]), _insample, WINDOW),
    Work("gluonts", "DeepARModel", _deepar, _history),
    Work(ALLEN, "LstmSeq2SeqEncoder, bidirectional",
         _allen("LstmSeq2SeqEncoder", "seq2seq_encoders", bidirectional=True), _masked),
    Work(ALLEN, "GruSeq2SeqEncoder, 2 layers", _allen("GruSeq2SeqEncoder", "seq2seq_encoders", num_layers=2), _masked),
    Work(ALLEN, "StackedBidirectionalLstmSeq2SeqEncoder",
         _allen("StackedBidirectionalLstmSeq2SeqEncoder", "seq2seq_encoders", num_layers=2), _masked),
    Work(FLAIR, "SequenceTagger", _flair(use_crf=False), lambda b, t: (_x(b, t), _lengths(b, t))),
    Work(FLAIR, "SequenceTagger with CRF", _flair(), lambda b, t: (_x(b, t), _lengths(b, t))),
    Work(TUTORIAL, "word language model", lambda: WordModel(False), _language),
    Work(TUTORIAL, "word language model, states carried", lambda: WordModel(False), _language, carried=True),
    Work(TUTORIAL, "word language model, tied, states carried", lambda: WordModel(True), _language, carried=True),
    Work(TUTORIAL, "sequence to sequence with attention", Translator, lambda b, t: (_tokens(b, t),)),
)  # fmt: skip
