"""Questions on passages: words and their places, official scores, readers of the files, pieces."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsernn_studies.data import DataError, data_folder
from sparsernn_studies.tasks import squad
from sparsernn_studies.tasks.passages import Passage, exact_match, f1, normalised
from sparsernn_studies.tasks.reading import scores


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
