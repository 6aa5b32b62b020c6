"""Questions as a model reads them: vocabulary, batches, answers and their scores, word vectors."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsernn_studies.data import DataError
from sparsernn_studies.runs import RunError
from sparsernn_studies.tasks import squad
from sparsernn_studies.tasks.passages import Passage
from sparsernn_studies.tasks.reading import Answering, Vocabulary, best_spans, scores
from sparsernn_studies.tasks.word_vectors import read_vectors


def test_the_vocabulary_numbers_what_is_frequent_and_spells_the_rest(tmp_path):
    questions = list(squad.made(40, 0))
    vocabulary = Vocabulary.of(questions)
    assert vocabulary.words[0] == "." and "anna" in vocabulary.words and "Anna" not in vocabulary.words
    words_U, letters_UC, passage_BT, t_B, question_BJ, j_B = vocabulary.inputs(
        [("Anna likes xylophones .".split(), ["Who", "?"]), (["anna"], ["Who", "likes", "Anna", "?"])]
    )
    assert t_B.tolist() == [4, 1] and j_B.tolist() == [2, 4]
    assert passage_BT.tolist() == [[1, 2, 3, 4], [5, 0, 0, 0]] and question_BJ.tolist() == [[6, 7, 0, 0], [6, 2, 1, 7]]
    assert words_U[0] == 0 and words_U[1] == words_U[5] > 1 and words_U[3] == 1
    assert not letters_UC[0].any() and not torch.equal(letters_UC[1], letters_UC[5])
    spelled = "".join(vocabulary.letters[n - 2] for n in letters_UC[1].tolist() if n > 1)
    assert spelled == "Anna"
    vocabulary.save(tmp_path / "v.json")
    assert Vocabulary.load(tmp_path / "v.json") == vocabulary
    known = Vocabulary.of(questions, {"anna", "zebra"})
    assert known.words == ("anna",) and known.letters == vocabulary.letters


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"words": ["a"]}', '{"words": "ab", "letters": []}', '{"words": [1], "letters": []}']
)
def test_a_damaged_vocabulary_is_named(tmp_path, content):
    path = tmp_path / "vocabulary.json"
    with pytest.raises(RunError, match=r"vocabulary.json is missing"):
        Vocabulary.load(path)
    path.write_text(content)
    with pytest.raises(RunError, match=r"vocabulary.json cannot be read"):
        Vocabulary.load(path)


def test_an_epoch_has_each_question_once_and_no_padded_passage():
    questions = list(squad.made(50, 2))
    objective = Answering(questions, Vocabulary.of(questions), 8, seed=3)
    batches = [objective.batch(step) for step in range(objective.steps_an_epoch)]
    assert sum(len(batch[-1]) for batch in batches) == 50 and max(len(batch[-1]) for batch in batches) == 8
    assert all(bool((batch[3] == batch[2].shape[1]).all()) for batch in batches)
    again = Answering(questions, objective.vocabulary, 8, seed=3)
    for step in (0, len(batches), 3):
        assert all(torch.equal(a, b) for a, b in zip(objective.batch(step), again.batch(step)))
    parts = [objective.batch(1, rank, 2) for rank in (0, 1)]
    assert sum(len(part[-1]) for part in parts) == len(batches[1][-1]) or len(batches[1][-1]) == 1


def test_the_likeliest_span_is_that_of_a_search():
    source = torch.Generator().manual_seed(0)
    for length, longest in ((1, 30), (7, 3), (9, 30)):
        start_BT, end_BT = torch.randn(2, 4, length, generator=source, dtype=torch.float64)
        start_BT[1, length // 2 + 1 :] = end_BT[1, length // 2 + 1 :] = -torch.inf  # padding
        p_BT, q_BT = start_BT.softmax(1), end_BT.softmax(1)
        first_B, last_B, share_B = best_spans(start_BT, end_BT, longest)
        for b in range(4):
            every = {
                (i, j): float(p_BT[b, i] * q_BT[b, j])
                for i in range(length)
                for j in range(i, min(length, i + longest))
            }
            assert every[int(first_B[b]), int(last_B[b])] == max(every.values())
            assert float(share_B[b]) == pytest.approx(max(every.values()), rel=1e-12)


def test_scores_are_means_in_percent():
    passage = Passage.of("the big house by the sea")
    asked: Any = [squad.Question(passage, ("Where", "?"), (0, 2), ("big house",))] * 2
    assert scores(asked, [(0, 2, 1.0), (5, 5, 1.0)]) == {"em": 50.0, "f1": 50.0}


def vectors_file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_word_vectors(tmp_path):
    path = vectors_file(tmp_path / "v.txt", "the 1 2.5 -3e-1\n. . 9 9 9\nhouse 4 5 6\n the 7 7 7\nsea 1 1 1\n")
    found = read_vectors(path, {"the", "sea", "ship"})
    assert set(found) == {"the", "sea"} and found["the"].tolist() == pytest.approx([1.0, 2.5, -0.3])


@pytest.mark.parametrize(
    "text, words",
    [
        ("the 1 2\nsea 1 x\n", "line 2: expected a word with 2 finite numbers"),
        ("the 1 nan\n", "line 1: expected a word with 2 finite numbers"),
        ("the\n", "line 1: expected a word with some finite numbers"),
        ("400000 2\nthe 1 2\n", "has none of the 2 words of the corpus"),
        ("", "has none of the 2 words"),
    ],
)
def test_what_are_no_word_vectors(tmp_path, text, words):
    path = vectors_file(tmp_path / "v.txt", text)
    with pytest.raises(DataError, match=words):
        read_vectors(path, {"the", "sea"})


def test_missing_word_vectors_and_other_files_are_named(tmp_path):
    with pytest.raises(DataError, match="There are no word vectors in") as error:
        read_vectors(tmp_path / "none.txt", {"the"})
    assert "https://nlp.stanford.edu" in str(error.value)
    (tmp_path / "b.txt").write_bytes(random.Random(0).randbytes(100) + b"\xff")
    with pytest.raises(DataError, match="is not text in UTF-8"):
        read_vectors(tmp_path / "b.txt", {"the"})
