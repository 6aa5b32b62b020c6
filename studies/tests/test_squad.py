"""Questions on passages: words and their places, official scores, readers of the files, pieces, word vectors."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsernn_studies.data import DataError, data_folder
from sparsernn_studies.runs import RunError
from sparsernn_studies.tasks import squad
from sparsernn_studies.tasks.passages import Passage, exact_match, f1, normalised
from sparsernn_studies.tasks.reading import Answering, Vocabulary, best_spans, scores
from sparsernn_studies.tasks.word_vectors import read_vectors


@pytest.mark.parametrize(
    "text, words",
    [
        ("He didn't pay $4,000.50 in 1920–1972.", "He did n't pay $ 4,000.50 in 1920 – 1972 ."),
        ("The minority 's rights; it’s theirs", "The minority 's rights ; it ’s theirs"),
        ('"Toronto-based" (R-N.Y.)', '" Toronto - based " ( R - N . Y . )'),
        ("can't cannot n't", "ca n't cannot n't"),
        ("the 1990s, 40% of naïve_users", "the 1990 s , 40 % of naïve _ users"),
        (" \n\t ", ""),
    ],
)
def test_words(text, words):
    assert " ".join(Passage.of(text).words) == words


@given(st.text(alphabet="ab 'n’t.-–4,\n\"é_"))
@settings(deadline=None)
def test_words_are_all_that_is_no_white_space_in_order(text):
    passage = Passage.of(text)
    assert "".join(passage.words) == "".join(text.split())
    assert all(end <= begin for (_, end), (begin, _) in zip(passage.places, passage.places[1:]))
    ends = [end for _, end in passage.sentences]
    assert [begin for begin, _ in passage.sentences] == [0, *ends][: len(ends)] and (
        not ends or ends[-1] == len(passage)
    )
    for n in range(len(passage)):
        assert passage.words[n] in passage.sentence(n)


def test_spans_and_parts():
    passage = Passage.of("Oslo is cold. New  York is not.")
    assert passage.span(14, 23) == (4, 5) and passage.between(4, 5) == "New  York"
    assert passage.span(15, 16) == (4, 4)
    part = passage.part(4, 9)
    assert part.text == "New  York is not." and part.words == passage.words[4:9] and part.between(0, 1) == "New  York"
    with pytest.raises(ValueError, match="hold no word"):
        passage.span(13, 14)


@pytest.mark.parametrize(
    "text, count",
    [
        ("One. Two! Three? Four", 4),
        ("Mr. Snell of the U.S. Army met J. F. Kennedy. He left.", 2),
        ('It cost 4.5 million. "Why?" he asked. (Nobody knew.) So it was .', 4),
        ("e.g. this one", 1),
        ("In 1920. 1930 followed.", 2),
    ],
)
def test_sentences(text, count):
    assert len(Passage.of(text).sentences) == count


@pytest.mark.parametrize(
    "answer, plain",
    [
        ("The  Beatles!", "beatles"),
        ("an 'a-the' A", "athe"),
        ("theatre and anthem", "theatre and anthem"),
        ("U.S.", "us"),
        ("a", ""),
        ("1920–1972", "1920–1972"),
    ],
)
def test_the_official_normalisation(answer, plain):
    assert normalised(answer) == plain


@pytest.mark.parametrize(
    "answer, wanted, em, overlap",
    [
        ("The Denver Broncos", ["Denver Broncos"], True, 1.0),
        ("Denver", ["Denver Broncos", "Carolina"], False, 2 / 3),
        ("the team Denver Broncos won", ["Denver Broncos"], False, 2 * (2 / 4) * 1 / (2 / 4 + 1)),
        ("to to be", ["to be"], False, 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("Carolina", ["Denver", "carolina."], True, 1.0),
        ("Carolina", ["Denver"], False, 0.0),
        ("the", ["a"], True, 0.0),  # nothing is left of either: no word in common, as in version 1.1
    ],
)
def test_the_official_scores(answer, wanted, em, overlap):
    assert exact_match(answer, wanted) is em and f1(answer, wanted) == pytest.approx(overlap)


def article(context: str, *asked: tuple[str, str]) -> bytes:
    qas = [
        {
            "id": "1",
            "question": q,
            "answers": [{"text": a, "answer_start": context.index(a)}, {"text": "x", "answer_start": 0}],
        }
        for q, a in asked
    ]
    return json.dumps(
        {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": qas}]}]}
    ).encode()


def test_squads_format():
    content = article("Ada Lovelace was born in London (1815).", ("Who?", "Ada Lovelace"), ("When ?", "1815"))
    found = list(squad.articles(content, "squad/x.json"))
    assert [q.span for q in found] == [(0, 1), (7, 7)] and found[0].answers == ("Ada Lovelace", "x")
    assert found[1].words == ("When", "?") and found[1].passage.between(*found[1].span) == "1815"


@pytest.mark.parametrize(
    "content, words",
    [
        (b"{", "JSONDecodeError"),
        (b"[]", "TypeError"),
        (b'{"data": [{"paragraphs": [{"context": "a"}]}]}', "'qas'"),
        (
            article("Ada lived.", ("Who?", "Ada")).replace(b'"answer_start": 0', b'"answer_start": 1', 1),
            "at character 1",
        ),
        (article("Ada lived.", ("Who?", "Ada")).replace(b'"question": "Who?"', b'"question": 3'), "TypeError"),
        (b'{"data\xff": 1}', "UnicodeDecodeError"),
    ],
)
def test_another_format_is_named(content, words):
    with pytest.raises(DataError, match=r"squad/x.json is not in SQuAD's format") as error:
        list(squad.articles(content, "squad/x.json"))
    assert words in str(error.value) and str(error.value).count("\n") <= 2


def test_the_subset_is_aligned_word_by_word():
    contents = {
        "context": "a Toronto-based firm of 1920–1972 grew .\na Toronto-based firm of 1920–1972 grew .\n",
        "question": "where ?\nwhat grew ?\n",
        "answer": "Toronto\na Toronto-based firm\n",
        "span": "1 1\n0 2\n",
    }
    first, second = squad.aligned(contents)
    assert first.passage.between(*first.span) == "Toronto" and first.span == (1, 1)
    assert second.passage.between(*second.span) == "a Toronto-based firm" and second.passage is first.passage
    with pytest.raises(DataError, match="question 1"):
        list(squad.aligned({**contents, "question": "where ?\n"}))


def test_passages_are_held_out_with_all_their_questions():
    questions = [q for n in range(40) for q in [*squad.made(1, n)] * 3]
    corpus = squad.held_out(questions)
    texts = [{q.passage.text for q in part} for part in (corpus.train, corpus.valid)]
    assert not texts[0] & texts[1] and len(texts[1]) == round(0.1 * len(texts[0] | texts[1]))
    assert len(corpus.train) + len(corpus.valid) == len(questions) and squad.held_out(questions) == corpus


@pytest.mark.parametrize("words", [5, 9, 12, 100])
def test_pieces_are_whole_sentences_with_the_answer(words):
    questions, found = list(squad.made(60, 3)), []
    for question in questions:
        for piece in squad.pieces([question], words, 7):
            found.append(piece)
            assert len(piece.passage) <= words and piece.passage.between(*piece.span) == piece.answers[0]
            assert piece.passage.text in question.passage.text and piece.passage.text.endswith(".")
            assert Passage.of(piece.passage.text).words == piece.passage.words
            missing = len(question.passage) - len(piece.passage)
            assert not missing or len(piece.passage) > words - 7  # no further sentence fits, all have at most 6 words
    assert len(found) == 60 if words > 5 else 0 < len(found) < 60
    assert squad.pieces(questions, words, 7) == squad.pieces(questions, words, 7)
    assert words != 12 or squad.pieces(questions, words, 7) != squad.pieces(questions, words, 8)


def test_made_questions_have_their_answer_in_the_passage():
    for question in squad.made(50, 0):
        assert exact_match(question.passage.between(*question.span), question.answers)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"squad/train-v1.1.json is needed and no data folder is given"):
        squad.load(None)
    for name, path in (("squad", "squad/train-v1.1.json"), ("subset", "squad_subset/val.context.gz")):
        with pytest.raises(DataError, match=f"lacks {path}") as error:
            squad.load(tmp_path, name)  # type: ignore[arg-type]
        assert "Get it from https://" in str(error.value)
    (tmp_path / "squad_subset").mkdir()
    (tmp_path / "squad_subset" / "val.context.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataError, match="is not the expected file"):
        squad.load(tmp_path, "subset")


@pytest.mark.data
def test_the_subset_has_the_published_numbers():
    folder = data_folder(None)
    if folder is None:
        pytest.skip("SPARSERNN_DATA names no data folder")
    corpus = squad.load(folder, "subset")
    both = (*corpus.train, *corpus.valid)
    assert len(both) == 4284 and len({q.passage.text for q in both}) == 875
    found = scores(both, [(*q.span, 1.0) for q in both])
    assert found["em"] > 99.5 and found["f1"] > 99.8
    assert max(len(q.passage) for q in squad.pieces(both, 60)) <= 60


# Vocabulary, batches, answers


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


# Word vectors


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
