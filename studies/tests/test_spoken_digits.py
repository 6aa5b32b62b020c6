"""Spoken digits: the task, the recipe, and `sparsernn listen`."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from sounds import noise, wav
from sparsernn.cli import main
from sparsernn_studies.data import DataError, data_folder
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import collect
from sparsernn_studies.settings import SettingsError, with_changes
from sparsernn_studies.stories.spoken_digits import SpokenDigits
from sparsernn_studies.tasks import spoken_digits
from sparsernn_studies.tasks.frames import labels
from sparsernn_studies.tasks.log_mel import (
    MELS,
    RATE,
    WINDOW,
    Scale,
)
from sparsernn_studies.tasks.wav import Sound, read_wav, resampled, write_wav

SCALE = Scale((0.5,) * MELS, (2.0,) * MELS)


pytestmark = pytest.mark.usefixtures("one_thread", "no_handlers")


def test_speakers_are_apart_and_every_seed_tests_another():
    found = spoken_digits.made(each=1)
    tested = []
    for seed in range(4):
        split = spoken_digits.split(found, seed)
        groups = [{r.speaker for r in part} for part in (split.train, split.valid, split.test)]
        assert [len(group) for group in groups] == [2, 1, 1] and len(set.union(*groups)) == 4
        assert len(split.train) + len(split.valid) + len(split.test) == len(found) == 40
        tested.append(split.test[0].speaker)
    assert tested == ["ada", "bea", "cy", "dot"]
    with pytest.raises(DataError, match="of 2 speakers, expected at least 3"):
        spoken_digits.split([r for r in found if r.speaker in ("ada", "bea")], 0)


def test_six_speakers_are_never_chosen_on_and_tested_in_three_seeds():
    found = spoken_digits.recordings(spoken_digits.made_files(0, "abcdef", 1))
    splits = [spoken_digits.split(found, seed) for seed in range(3)]
    assert {s.test[0].speaker for s in splits}.isdisjoint({s.valid[0].speaker for s in splits})


def packed(folder: Path, files: dict[str, bytes]) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "recordings.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return (folder / "recordings.zip").read_bytes()


def test_the_zip_is_read_in_place_and_only_if_it_is_the_right_one(tmp_path, monkeypatch):
    files = {f"recordings/{name}": c for name, c in spoken_digits.made_files(0, ("a", "b", "c"), 1).items()}
    content = packed(tmp_path / "fsdd", files)
    assert dict(spoken_digits.unzipped(content)) == files
    with pytest.raises(DataError, match=r"recordings\.zip is not the expected file"):
        spoken_digits.load(tmp_path)
    (tmp_path / "fsdd" / "recordings.zip").unlink()
    with pytest.raises(DataError, match=r"lacks fsdd/recordings\.zip\.\nGet it from https://github\.com"):
        spoken_digits.load(tmp_path)
    with pytest.raises(DataError, match=r"fsdd/recordings\.zip is needed and no data folder"):
        spoken_digits.load(None)
    (tmp_path / "fsdd" / "recordings").mkdir()
    for name, each in files.items():
        (tmp_path / "fsdd" / name).write_bytes(each)
    with pytest.raises(DataError, match="does not hold the expected 3,000 recordings"):
        spoken_digits.load(tmp_path)
    monkeypatch.setattr(spoken_digits, "CONTENT", spoken_digits.digest(files))
    found = spoken_digits.load(tmp_path)
    assert (
        len(found) == 30 and found[0].samples_N.tolist() == read_wav(next(iter(files.values())), "a").samples_N.tolist()
    )
    with (tmp_path / "fsdd" / "recordings" / "0_a_1.wav").open("wb") as large:
        large.truncate((1 << 20) + 1)
    with pytest.raises(DataError, match="expected at most 1048576"):
        spoken_digits.load(tmp_path)
    with pytest.raises(DataError, match="unfolds to more than"):
        list(spoken_digits.unzipped(packed(tmp_path, {"0_a_0.wav": bytes((1 << 20) + 1)})))
    with pytest.raises(DataError, match="cannot be read"):
        list(spoken_digits.unzipped(content[:-100]))
    with pytest.raises(DataError, match="is not named like a recording"):
        spoken_digits.recordings({"../0_a_0.wav": b""})


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished smoke run, made once."""
    folder = tmp_path_factory.mktemp("spoken")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SPARSERNN_DATA", raising=False)
        assert main(["run", "spoken-digits", "--scale", "smoke"]) == 0
    return folder / "runs" / "spoken-digits" / "smoke-seed0"


def test_the_recipe_from_dense_to_int8(run_folder):
    rows = {r.row: r.measured for r in collect(run_folder / "results")}
    assert set(rows) == set(SpokenDigits.labels)
    for row in ("fast", "blocks", "bfloat16", "int8"):
        assert rows[row]["stream_same_labels"] == rows[row]["stream_recordings"] == 160
    assert "us_step" not in rows["dense-longer"]
    for row in set(rows) - {"dense-longer"}:
        assert rows[row]["us_step"] > 0 and rows[row]["us_step_p99"] >= rows[row]["us_step"]
        assert rows[row]["real_time_factor"] == pytest.approx(
            (rows[row]["us_step"] + rows[row]["us_features"]) / 10_000
        )
    # The compact models are the sparse one, and the direct one has their size.
    assert rows["sparse"]["test_accuracy"] == rows["compact"]["test_accuracy"] == rows["fast"]["test_accuracy"]
    assert rows["compact"]["nonzero"] == rows["sparse"]["nonzero"] < rows["sparse"]["weights"]
    assert rows["compact"]["weights"] == rows["int8"]["weights"] and rows["compact"]["units"] == rows["int8"]["units"]
    assert rows["direct"]["weights"] == pytest.approx(rows["blocks"]["nonzero"], rel=0.1)
    inside = rows["compact"]["weights"] - 10 * rows["compact"]["units"][1]
    assert inside <= 0.5 * (rows["dense"]["weights"] - 10 * 32)
    assert rows["blocks"]["nonzero"] < 0.6 * rows["compact"]["nonzero"]
    assert rows["bfloat16"]["step_bytes"] < rows["blocks"]["step_bytes"]
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert all(label in page for label in SpokenDigits.labels.values())


def test_a_run_is_taken_up_where_it_was_left(run_folder, monkeypatch, capsys):
    monkeypatch.chdir(run_folder.parents[2])
    monkeypatch.setattr("sparsernn_studies.study.train", None)
    assert main(["run", "spoken-digits", "--scale", "smoke"]) == 0
    assert "16x1 blocks" in capsys.readouterr().out
    for command in ("inspect", "bench"):
        assert main([command, "spoken-digits"]) == 0
    assert "units can go" in capsys.readouterr().out


def test_listen_tells_the_label_of_the_whole_file(run_folder, capsys, tmp_path):
    from sparsernn_studies.runs import Run

    settings = RECIPES["spoken-digits"].at("smoke")
    work = SpokenDigits(Run("spoken-digits", "smoke", 0, settings, run_folder, tmp_path))
    for name, content in list(spoken_digits.made_files(5, ("eve",), 1).items())[:3]:
        (tmp_path / name).write_bytes(content)
        for row in ("fast", "int8"):
            assert main(["listen", str(run_folder), str(tmp_path / name), "--row", row]) == 0
            out = capsys.readouterr().out
            heard = work.sounds.heard(spoken_digits.recordings({name: content}))
            word = spoken_digits.WORDS[int(labels(work.load(work.named(row)), heard))]
            last = out.replace("\n", " ").strip().rpartition("s  ")[2]
            assert word in last and f"{word} (" in out and "real-time factor" in out and "p99" in out


def test_listen_takes_other_rates_and_channels(run_folder, capsys, tmp_path):
    sound = resampled(Sound(noise(4_000), RATE), 44_100)
    raw = np.repeat(np.rint(sound.samples_N * 2**15).astype("<i2"), 2).tobytes()
    (tmp_path / "a.wav").write_bytes(wav(raw, channels=2, rate=44_100))
    assert main(["listen", str(run_folder), str(tmp_path / "a.wav")]) == 0
    assert "0.50 s heard by 'and blocks in int8'" in capsys.readouterr().out


def test_listen_says_what_it_cannot_hear(run_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("no.wav").write_bytes(b"no")
    Path("short.wav").write_bytes(write_wav(Sound(noise(WINDOW - 1), RATE)))
    Path("fine.wav").write_bytes(write_wav(Sound(noise(800), RATE)))
    with Path("large.wav").open("wb") as large:
        large.truncate((1 << 28) + 1)
    half = tmp_path / "half"
    half.mkdir()
    (half / "run.json").write_text((run_folder / "run.json").read_text())
    run = str(run_folder)
    for arguments, code, words in (
        ([run, "nothing.wav"], 2, "There is no file nothing.wav; name a WAV file."),
        ([run, "no.wav"], 1, "no.wav is not a WAV file of linear PCM"),
        ([run, "large.wav"], 1, "large.wav has 268435457 bytes, expected at most 268435456"),
        (["half", "fine.wav"], 1, "blocks.safetensors is missing, so the run is not done"),
        ([run, "short.wav"], 1, "short.wav lasts 25 ms, expected at least one frame of 25 ms"),
        ([run, "fine.wav", "--row", "dense"], 2, "--row dense: expected one of the rows that stream, fast, blocks"),
        (["nothing", "fine.wav"], 2, "There is no run nothing"),
    ):
        assert main(["listen", *arguments]) == code
        said = capsys.readouterr().err
        assert words in said and "Traceback" not in said and said.count("\n") <= 3


def test_listen_needs_the_scale_of_the_training(run_folder, capsys, tmp_path):
    sound = tmp_path / "fine.wav"
    sound.write_bytes(write_wav(Sound(noise(800), RATE)))
    kept = run_folder / "features.json"
    content = kept.read_text()
    try:
        for damaged in ("{", "{}", '{"mean": [1.0], "deviation": [1.0]}', "[]"):
            kept.write_text(damaged)
            assert main(["listen", str(run_folder), str(sound)]) == 1
            assert "features.json cannot be read" in capsys.readouterr().err
        kept.unlink()
        assert main(["listen", str(run_folder), str(sound)]) == 1
        assert "features.json is missing" in capsys.readouterr().err
    finally:
        kept.write_text(content)


def test_other_recipes_do_not_listen(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--set", "strings=200", "hidden=8", "steps=2", "warm_up=1"]
    assert main(["run", "reber", "--scale", "smoke", *small]) == 0
    Path("fine.wav").write_bytes(write_wav(Sound(noise(800), RATE)))
    capsys.readouterr()
    assert main(["listen", "reber", "fine.wav"]) == 2
    assert "does not listen; name a run of spoken-digits." in capsys.readouterr().err


@pytest.mark.parametrize("change", ["target=1", "dropout=-1", "hidden=0", "variants=-1", "block_sparsity=1", "steps=0"])
def test_settings_that_make_no_sense_are_refused(change):
    with pytest.raises(SettingsError, match="expected"):
        with_changes(RECIPES["spoken-digits"].at("cpu"), [change])


@pytest.mark.data
def test_the_real_recordings_have_the_published_numbers():
    folder = data_folder(None)
    if folder is None:
        pytest.skip("SPARSERNN_DATA names no data folder")
    found = spoken_digits.load(folder)
    speakers = ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
    assert len(found) == 3_000 and sorted({r.speaker for r in found}) == speakers
    assert round(sum(len(r.samples_N) for r in found) / RATE) == 1_312
    for seed, speaker in enumerate(speakers):
        split = spoken_digits.split(found, seed)
        assert split.test[0].speaker == speaker
        assert [len(part) for part in (split.train, split.valid, split.test)] == [2_000, 500, 500]
