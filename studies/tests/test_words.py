"""Word models: AWD-LSTM's regularisation, training that resumes to the bit, tagging, the recipes of Demeester."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sparsernn.learn.averaged import SNTASGD
from sparsernn.learn.rewire import Rewire
from sparsernn.nn import FrequencyEmbedding, SplitLSTM
from sparsernn_studies import checkpoint
from sparsernn_studies.regularisation import WeightDrop, activation_penalty, embed, locked_dropout, window_length
from sparsernn_studies.tasks import pos
from sparsernn_studies.word_model import Drop, WordModel, layers
from sparsernn_studies.word_training import WordTrainer, WordTraining

TEXT = torch.randint(20, (400,), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", [lambda: nn.LSTM(4, 6, 2, bidirectional=True), lambda: SplitLSTM(4, 6, blocks=2)])
def test_weight_drop_computes_with_dropped_recurrent_weights_and_leaves_the_parameters_alone(make):
    torch.manual_seed(0)
    layer = make()
    x = torch.randn(5, 3, 4)
    plain = layer(x)[0]
    before = copy.deepcopy(layer.state_dict())
    WeightDrop(0.5).attach(layer)
    torch.manual_seed(1)
    dropped = layer(x)[0]
    assert not torch.allclose(dropped, plain)
    dropped.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    for name, p in layer.named_parameters():
        share = float((p.grad == 0).float().mean())
        assert (0.2 < share < 0.8) if "weight_hh" in name else share < 0.1
    assert torch.equal(layer.eval()(x)[0], plain)
    # The same numbers as a layer whose weights were dropped by hand.
    twin = nn.LSTM(4, 6)
    hooked = copy.deepcopy(twin)
    WeightDrop(0.5).attach(hooked)
    torch.manual_seed(2)
    found = hooked(x)[0]
    torch.manual_seed(2)
    with torch.no_grad():
        twin.weight_hh_l0.copy_(nn.functional.dropout(twin.weight_hh_l0, 0.5))
    assert torch.allclose(found, twin(x)[0], atol=1e-6)


def test_locked_dropout_has_one_mask_for_all_steps_and_word_dropout_one_for_each_word():
    torch.manual_seed(0)
    x = torch.ones(7, 5, 40)
    y = locked_dropout(x, 0.5, True)
    assert torch.equal(y, y[:1].expand_as(y)) and set(y.unique().tolist()) == {0.0, 2.0}
    assert locked_dropout(x, 0.5, False) is x
    embedding = nn.Embedding(20, 6)
    words = torch.randint(20, (30, 4))
    found = embed(embedding, words, 20, 0.5, True)
    scale = (found / embedding(words)).mean(-1)
    for word in words.unique():
        values = scale[words == word]
        assert torch.allclose(values, values[0].expand_as(values)) and min(abs(values[0]), abs(values[0] - 2)) < 1e-5
    assert torch.equal(embed(embedding, words, 20, 0.5, False), embedding(words))


def test_activation_penalties_are_mean_squares():
    dropped, raw = torch.randn(6, 2, 3, dtype=torch.float64), torch.randn(6, 2, 3, dtype=torch.float64)
    expected = 2 * dropped.square().mean() + 3 * (raw[1:] - raw[:-1]).square().mean()
    assert torch.allclose(activation_penalty(dropped, raw, 2.0, 3.0), expected)
    assert float(activation_penalty(dropped, raw, 0.0, 0.0)) == 0


def test_windows_vary_round_their_length_and_depend_on_the_step_alone():
    lengths = [window_length(70, step, 3) for step in range(600)]
    assert lengths == [window_length(70, step, 3) for step in range(600)] and min(lengths) >= 5
    halved = sum(length < 50 for length in lengths) / len(lengths)
    assert 0.02 < halved < 0.09 and abs(sum(lengths) / len(lengths) - 68) < 2


def model(sparse: bool = False) -> WordModel:
    torch.manual_seed(0)
    counts = torch.bincount(TEXT, minlength=20)
    embedding = FrequencyEmbedding(counts, 8, density=0.5, blocks=4) if sparse else nn.Embedding(20, 8)
    drop = Drop(words=0.1, input=0.2, hidden=0.2, output=0.2, weights=0.3)
    return WordModel(embedding, layers(8, 12, reduce=0.7 if sparse else 1.0), drop)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("stop", [3, 11, 24])
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path, sparse, stop):
    def run(folder: str, steps: int) -> WordTrainer:
        settings = WordTraining(
            4, 2.0, 4, 10, vary=True, alpha=2.0, beta=1.0, momentum=0.5, patience=1, steps=steps, decay=0.9
        )
        trainer = WordTrainer(model(sparse), TEXT, TEXT[:90], settings, 5, tmp_path / folder)
        trainer.train("test")
        return trainer

    whole = run("whole", 0)
    run("parts", stop)
    file = tmp_path / "parts" / "checkpoint.safetensors"
    kept = checkpoint.read(file)
    del kept["history"]  # which checkpoints did not hold at first
    checkpoint.write(file, kept)
    again = run("parts", 0)
    assert again.step == whole.step > stop and again.losses == whole.losses and len(whole.losses) == 4
    pairs = zip(whole.model.state_dict().values(), again.model.state_dict().values())
    assert all(torch.equal(a, b) for a, b in pairs)


def test_averaging_begins_when_the_validation_no_longer_falls_and_is_the_mean_of_the_weights(tmp_path):
    settings = WordTraining(3, 1e-9, 4, 10, patience=1)
    trainer = WordTrainer(model(), TEXT, TEXT[:90], settings, 0, tmp_path)
    trainer.losses = [1.0, 0.5]  # nothing this model does is as good
    trainer.train("test")
    assert trainer.averaging and isinstance(trainer.optimizer, torch.optim.ASGD)
    settings = WordTraining(1, 1.0, 4, 10, averaged=True)
    trainer = WordTrainer(model(), TEXT, None, settings, 0, tmp_path / "mean")
    course = []
    while trainer.place < len(trainer.x_NB):
        trainer.learn()
        course.append(trainer.model.bias.detach().clone())
    with trainer.averaged_weights():
        assert torch.allclose(
            trainer.model.bias, torch.stack(course[1:]).mean(0), atol=1e-6
        )  # torch leaves the first out
    assert torch.equal(trainer.model.bias, course[-1])


class Interrupted(WordTrainer):
    """Falls over behind a checkpoint."""

    stop = 0

    def after(self, loss):
        super().after(loss)
        if self.step == self.stop:
            self.save(self.file)
            raise InterruptedError


def test_a_net_whose_weights_move_is_averaged_from_when_they_grew_and_resumes_to_the_bit(tmp_path):
    """SNT-ASGD: the average of a weight that is not there is zero."""

    def trainer(folder: str) -> Interrupted:
        settings = WordTraining(4, 2.0, 4, 10, patience=1)
        rewire = lambda net, goal: Rewire(net, sparsity=0.5, steps=goal, every=2, end=1.0)  # noqa: E731
        made = Interrupted(model(), TEXT, TEXT[:90], settings, 0, tmp_path / folder, rewire)
        if not made.step:
            made.optimizer.look(0.5)  # nothing this model does is as good
            made.optimizer.look(0.1)
        return made

    whole = trainer("whole")
    whole.train("test")
    parts = trainer("parts")
    parts.stop = 25
    with pytest.raises(InterruptedError):
        parts.train("test")
    again = trainer("parts")
    assert again.step == 25 and again.optimizer.averaging
    again.train("test")
    assert whole.averaging and isinstance(whole.optimizer, SNTASGD) and whole.losses == again.losses
    weights = dict(whole.model.named_parameters())
    plain = {name: p.detach().clone() for name, p in weights.items()}
    with whole.averaged_weights(), again.averaged_weights():
        for name, p in again.model.named_parameters():
            assert torch.equal(p, weights[name]) and not torch.equal(p, plain[name])
            assert "weight_hh" not in name or torch.equal(p == 0, plain[name] == 0)


def corpus() -> pos.Corpus:
    tree = "( (S (NP (DT The) (NN cat)) (VP (VBD sat) (-NONE- *T*-1)) (. .)) )\n( (S (NN a) (NN b)) )"
    found = list(pos.leaves(tree))
    assert found == [(("The", "DT"), ("cat", "NN"), ("sat", "VBD"), (".", ".")), (("a", "NN"), ("b", "NN"))]
    assert list(pos.columns("a DT B-NP\nb NN I-NP\n\nc VB O\n\n")) == [(("a", "DT"), ("b", "NN")), (("c", "VB"),)]
    sentences = [
        tuple((f"w{n % 5 if n < 30 else n}", "ABC"[n % 3]) for n in range(k, k + 2 + k % 4)) for k in range(40)
    ]
    return pos.corpus(sentences, [(("w1", "A"), ("never", "B"))])


def test_tagging_reads_every_sentence_once_an_epoch_and_pads_nothing():
    made = corpus()
    counts = made.counts.tolist()
    assert counts == sorted(counts, reverse=True) and made.words[-1] == pos.PADDING
    assert made.test.words[0][1] == made.unknown
    task = pos.Tagging(made, 4, 1)
    seen = []
    for step in range(task.steps_an_epoch):
        x_TB, lengths_B, tags_TB = task.batch(step)
        assert bool((lengths_B == len(x_TB)).all()) and bool((tags_TB != pos.IGNORED).all())
        seen += [tuple(column) for column in tags_TB.t().tolist()]
        assert all(torch.equal(a, b) for a, b in zip(task.batch(step), (x_TB, lengths_B, tags_TB)))
    assert sorted(seen) == sorted(tuple(tags.tolist()) for tags in made.train.tags)
