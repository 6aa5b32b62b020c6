"""Tasks: the Reber automaton as oracle, splits, padding, streams, data files that are checked before use."""

import gzip
import hashlib
import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch

from sparsernn_studies.data import DataError, DataFile, data_folder, read, unpack
from sparsernn_studies.models import CharacterLSTM, SequenceClassifier
from sparsernn_studies.tasks import agnews, imdb, labelled, ptb_char, ptb_word, reber, shakespeare
from sparsernn_studies.tasks.sequences import Classification, accuracy, padded
from sparsernn_studies.tasks.text import LanguageModelling, Streams, Text, bits_per_symbol


@pytest.mark.smoke
@pytest.mark.parametrize("embedded", [False, True])
def test_every_label_is_the_automatons(embedded):
    made = reber.generate(2000, 3, embedded=embedded)
    judge = reber.accepts_embedded if embedded else reber.accepts
    assert [judge(s) for s in made.strings] == list(made.valid)
    assert sum(made.valid) == 1000
    assert len(set(made.strings)) == 2000
    for s in made.strings:
        assert len(s) >= 11 and s[0] == "B" and s[-1] == "E" and set(s) <= set(reber.LETTERS)


def test_invalid_strings_are_near_misses():
    made = reber.generate(400, 0)
    used = {s[:2] for s, valid in zip(made.strings, made.valid) if not valid}
    assert used >= {"BT", "BP"}  # both branches


@pytest.mark.parametrize(("count", "embedded"), [(4, False), (2000, False), (2000, True)])
def test_length_tells_nothing(count, embedded):
    made = reber.generate(count, 3, embedded=embedded)
    lengths = {v: Counter(len(s) for s, w in zip(made.strings, made.valid) if w is v) for v in (True, False)}
    assert lengths[True] == lengths[False]


def test_automaton_reads_known_strings():
    assert reber.accepts("BTSSXXTVVE") and reber.accepts("BPVVE") and reber.accepts("BTXSE")
    for wrong in ("", "B", "BE", "BTSSXXTVV", "BPVVEE", "TPVVE", "BTTXSE", "BPVPXVPE"):
        assert not reber.accepts(wrong)
    assert reber.accepts_embedded("BTBPVVETE") and not reber.accepts_embedded("BTBPVVEPE")


def test_strings_depend_on_the_seed_alone():
    random.seed(1)
    first = reber.generate(80, 5)
    random.seed(2)
    assert reber.generate(80, 5) == first
    assert reber.generate(80, 6) != first
    with pytest.raises(ValueError, match="multiple of 4"):
        reber.generate(10, 0)


def test_batches_cover_each_epoch_once_and_ranks_split_them():
    made = reber.generate(64, 0)
    x, lengths = padded(made.strings, reber.LETTERS)
    data = Classification(x, lengths, torch.arange(64), batch_size=16, seed=4)
    for epoch in (0, 1):
        seen = torch.cat([data.batch(4 * epoch + n)[2] for n in range(4)])
        assert sorted(seen.tolist()) == list(range(64))
    whole = data.batch(6)[2]
    parts = torch.cat([data.batch(6, rank, 2)[2] for rank in (0, 1)])
    assert sorted(parts.tolist()) == sorted(whole.tolist())


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_padding_is_never_read(cell):
    torch.manual_seed(0)
    model = SequenceClassifier(cell, 8, 5, 6).double().eval()
    made = reber.generate(16, 0)
    x, lengths = padded(made.strings, reber.LETTERS)
    alone = torch.cat([model(x[: lengths[n], n : n + 1], lengths[n : n + 1]) for n in range(16)])
    torch.testing.assert_close(model(x, lengths), alone, rtol=0, atol=1e-12)
    noisy = x.clone()
    for n in range(16):
        noisy[lengths[n] :, n] = 7
    assert torch.equal(model(noisy, lengths), model(x, lengths))
    classes = torch.tensor(made.valid).long()
    assert accuracy(model, x, lengths, classes, batch=5) == accuracy(model, x, lengths, classes)


def test_shakespeare_is_whole_and_its_parts_are_disjoint():
    text = shakespeare.load()
    parts = (text.valid, text.train, text.test)
    assert len(text.symbols) == 65 and sum(map(len, parts)) == 1_115_394
    assert len(text.test) == 1_115_394 - int(0.9 * 1_115_394)
    begin = "".join(text.symbols[n] for n in text.valid[:14])
    assert begin == "First Citizen:"


def test_streams_are_contiguous_and_targets_are_the_next_symbols():
    text = torch.arange(103)
    streams = Streams(text, batch=4, steps=5)
    assert streams.length == 25
    seen = torch.cat([streams.at(n)[0] for n in range(5)])
    assert torch.equal(seen, torch.arange(25)[:, None] + 25 * torch.arange(4))
    for n in range(11):
        x, y, fresh = streams.at(n)
        assert torch.equal(y, x + 1) and fresh == (n % 5 == 0)
    with pytest.raises(ValueError, match="fewer streams"):
        Streams(torch.arange(10), batch=4, steps=5)


def test_bits_are_those_of_a_plain_loop():
    torch.manual_seed(0)
    model = CharacterLSTM(7, 4, 5, dropout=0.5).double()
    text = torch.randint(7, (90,))
    model.eval()
    total = 0.0
    with torch.no_grad():
        for stream in range(2):
            x = text[44 * stream : 44 * stream + 44][:, None]
            log = model(x).log_softmax(-1)
            total -= log[torch.arange(44), 0, text[44 * stream + 1 : 44 * stream + 45]].sum().item()
    model.train()
    assert bits_per_symbol(model, text, streams=2, window=7) == pytest.approx(total / 88 / math.log(2), rel=1e-12)
    assert model.training


def test_state_is_carried_between_steps_and_cut():
    torch.manual_seed(0)
    model = CharacterLSTM(7, 4, 5).double()
    objective = LanguageModelling(Streams(torch.randint(7, (200,)), 2, 6))
    _, state = objective.loss(model, objective.batch(0), None)
    assert not any(part.requires_grad for part in state)
    x, y, _ = objective.batch(1)
    carried, _ = objective.loss(model, (x, y, False), state)
    anew, _ = objective.loss(model, (x, y, True), state)
    whole, _ = model(torch.cat([objective.batch(0)[0], x]), model.zero_state(2))
    expected = torch.nn.functional.cross_entropy(whole[6:].flatten(0, 1), y.flatten())
    assert carried.item() == pytest.approx(expected.item(), rel=1e-12)
    assert carried.item() != anew.item()


def test_texts_end_with_the_last_step_and_each_is_read_once_an_epoch():
    assert labelled.words_of("It's <br />GREAT-ish, 10/10!") == ["it's", "great", "ish", "10", "10"]
    parsed = [([f"w{n % 7}"] * (1 + n % 9), n % 2) for n in range(40)]
    texts = labelled.numbered(parsed, {f"w{n}": n + 3 for n in range(6)}, 5)
    assert max(map(len, texts.words)) == 5 and texts.words[6].tolist() == [labelled.UNKNOWN] * 5
    assert texts.words[1].tolist() == [labelled.START, 4, 4] and texts.classes_N[1] == 1
    task = labelled.TextClassification(texts, 4, seed=1)
    seen = []
    for step in range(task.steps_an_epoch):
        x_TB, classes_B = task.batch(step)
        assert (x_TB[-1] != labelled.PADDING).all() and (x_TB[0] != labelled.PADDING).any()
        seen += [(tuple(w for w in column if w), int(c)) for column, c in zip(x_TB.t().tolist(), classes_B)]
        assert all(torch.equal(a, b) for a, b in zip(task.batch(step), (x_TB, classes_B)))
    assert sorted(seen) == sorted((tuple(w.tolist()), int(c)) for w, c in zip(texts.words, texts.classes_N))


def test_what_is_watched_is_not_learnt_and_the_vocabulary_is_that_of_what_is_learnt():
    train, test = [([f"a{n}"], 0) for n in range(20)], [(["a0", "b"], 1)]
    found = labelled.labelled(train, test, 100, 10, 0.25)
    assert (len(found.train), len(found.valid), len(found.test)) == (15, 5, 1)
    numbers = {int(words[1]) for words in found.train.words}
    assert not numbers & {int(words[1]) for words in found.valid.words}
    assert found.test.words[0].tolist() == [labelled.START, 3, labelled.UNKNOWN] and "b" not in found.vocabulary


def test_a_review_without_text_and_news_without_a_class_are_named():
    with pytest.raises(DataError, match="line 2 is no review"):
        imdb._parsed(b'{"text": "a", "label": 1}\n{"label": 0}\n', "train.jsonl", 0)
    with pytest.raises(DataError, match="entry 2 is no class from 1 to 4"):
        agnews._parsed(b'"4","Title, with comma","Say ""yes"""\n"5","a","b"\n', "test.csv")
    assert agnews._parsed(b'"4","Title, with comma","Say ""yes"""\n', "test.csv") == [
        (["title", "with", "comma", "say", "yes"], 3)
    ]


def test_words_beyond_the_vocabulary_are_unknown():
    text = Text(("the", "<unk>", "of", "rare"), *(torch.tensor([0, 1, 2, 3, 3]) for _ in range(3)))
    few = ptb_word.most_frequent(text, 2)
    assert few.symbols == ("the", "<unk>") and few.train.tolist() == few.test.tolist() == [0, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="words is 1, expected more than 1"):
        ptb_word.most_frequent(text, 1)


@pytest.mark.data
def test_characters_of_ptb_and_the_split_test_part_of_ag_news_have_the_published_sizes():
    folder = data_folder(None)
    if folder is None:
        pytest.skip("SPARSERNN_DATA is not set")
    text = ptb_char.load(folder)
    assert (len(text.train), len(text.valid), len(text.test)) == (5_017_482, 393_042, 442_423)
    assert len(text.symbols) == 50
    news = agnews.load(folder, test_part_only=True)
    assert len(news.train) + len(news.valid) + len(news.test) == 7600
    assert set(news.train.classes_N.tolist()) == {0, 1, 2, 3}


def test_data_files_are_checked_before_use(tmp_path: Path, monkeypatch):
    content = b"a word\n"
    packed = gzip.compress(content)
    file = DataFile(
        "set/a.txt.gz",
        hashlib.sha256(packed).hexdigest(),
        hashlib.sha256(content).hexdigest(),
        "https://example.org/a.txt",
    )
    with pytest.raises(DataError, match=r"set/a\.txt\.gz is needed and no data folder.*\n.*example\.org.*--data"):
        read(file, None)
    with pytest.raises(DataError, match=r"lacks set/a\.txt\.gz \(or a\.txt\)\.\nGet it from https://example\.org"):
        read(file, tmp_path)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_bytes(content)
    assert read(file, tmp_path) == content
    (tmp_path / "set" / "a.txt.gz").write_bytes(packed)
    assert read(file, tmp_path) == content
    (tmp_path / "set" / "a.txt.gz").write_bytes(packed + b"\0")
    with pytest.raises(DataError, match="not the expected file"):
        read(file, tmp_path)
    with pytest.raises(DataError, match="unfolds to more than 100 bytes"):
        unpack(gzip.compress(bytes(1000)), Path("b.gz"), largest=100)
    monkeypatch.setenv("SPARSERNN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="does not exist"):
        data_folder(None)
    assert data_folder(tmp_path) == tmp_path


def test_ptb_names_the_missing_file(tmp_path: Path):
    with pytest.raises(DataError, match=r"lacks ptb/ptb\.train\.txt\.gz.*\nGet it from https://"):
        ptb_word.load(tmp_path)


@pytest.mark.data
def test_ptb_has_the_published_sizes():
    folder = data_folder(None)
    if folder is None:
        pytest.skip("SPARSERNN_DATA names no data folder")
    text = ptb_word.load(folder)
    assert (len(text.train), len(text.valid), len(text.test)) == (929_589, 73_760, 82_430)
    assert len(text.symbols) == 10_000
