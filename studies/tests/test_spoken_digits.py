"""Spoken digits: WAV files, features that a stream and a file share, the task, the recipe, and `sparsernn listen`."""

import copy
import io
import logging
import random
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sparsernn.cli import main
from sparsernn_studies.data import DataError, data_folder
from sparsernn_studies.models import FrameClassifier
from sparsernn_studies.recipes import RECIPES
from sparsernn_studies.results import collect
from sparsernn_studies.settings import SettingsError, with_changes
from sparsernn_studies.stories.spoken_digits import SpokenDigits
from sparsernn_studies.tasks import spoken_digits
from sparsernn_studies.tasks.augment import augmented
from sparsernn_studies.tasks.frames import Distillation, FrameClassification, Sequences, accuracy, labels, mean_logits
from sparsernn_studies.tasks.log_mel import (
    FOURIER,
    HOP,
    MELS,
    RANGE,
    RATE,
    WINDOW,
    Ear,
    Scale,
    features,
    frames_of,
    levelled,
    log_mel,
    mel_filters,
    scale_of,
)
from sparsernn_studies.tasks.wav import Sound, read_wav, resampled, write_wav

SCALE = Scale((0.5,) * MELS, (2.0,) * MELS)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    logging.getLogger().handlers.clear()


def noise(count: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(count)


def wav(raw: bytes, *, channels: int = 1, width: int = 2, rate: int = RATE) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)
    return content.getvalue()


def test_wav_files_of_every_width_give_their_numbers():
    for width, low, high in ((2, -(2**15), 2**15 - 1), (3, -(2**23), 2**23 - 1), (4, -(2**31), 2**31 - 1)):
        values = [0, 1, -1, low, high]
        raw = b"".join(value.to_bytes(width, "little", signed=True) for value in values)
        assert read_wav(wav(raw, width=width), "a.wav").samples_N.tolist() == [value / -low for value in values]
    assert read_wav(wav(bytes([0, 128, 255]), width=1), "a.wav").samples_N.tolist() == [-1.0, 0.0, 127 / 128]
    stereo = np.array([[100, 300], [-100, 100]], "<i2").tobytes()
    assert read_wav(wav(stereo, channels=2), "a.wav").samples_N.tolist() == [200 / 2**15, 0.0]
    sound = Sound(np.array([0.25, -1.0, 2.0]), 16_000)
    back = read_wav(write_wav(sound), "a.wav")
    assert back.rate == 16_000 and back.samples_N.tolist() == [0.25, -1.0, (2**15 - 1) / 2**15]


def test_every_damage_of_a_wav_file_is_an_error_that_names_it():
    good = wav(bytes(range(200)) * 2)
    draw = random.Random(0)
    damaged = [good[: draw.randrange(len(good))] for _ in range(60)]
    for _ in range(240):
        changed = bytearray(good)
        place = draw.randrange(44)
        values = draw.choice((b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", bytes(4), bytes([draw.randrange(256)])))
        changed[place : place + len(values)] = values
        damaged.append(bytes(changed))
    refused = 0
    for content in damaged:
        try:
            sound = read_wav(content, "a.wav")
        except DataError as error:
            refused += 1
            assert "a.wav" in str(error) and str(error).count("\n") <= 2 and "()" not in str(error)
        else:
            assert len(sound.samples_N) and np.isfinite(sound.samples_N).all()
    assert refused > 150


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a WAV file of linear PCM"),
        (b"RIFFxxxxWAVEnothing", "is not a WAV file of linear PCM"),
        (wav(bytes(400))[:200], "holds 156 bytes of sound, expected 400"),
        (wav(b""), "holds 0 bytes of sound"),
        (wav(bytes(40), rate=0x7FFFFFFF)[:24] + bytes(4) + wav(bytes(40))[28:], "expected at most 600 seconds"),
        (wav(bytes(2000))[:20] + b"\x03\x00" + wav(bytes(2000))[22:], "unknown format: 3"),
    ],
)
def test_what_is_no_wav_file_is_a_sentence(content, words):
    with pytest.raises(DataError, match=words) as caught:
        read_wav(content, "a.wav")
    assert "a.wav" in str(caught.value) and str(caught.value).count("\n") <= 2


def test_another_sample_rate_is_converted():
    t = np.arange(16_000) / 16_000
    half = resampled(Sound(np.sin(2 * np.pi * 440 * t), 16_000), RATE)
    expected = np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000)
    assert half.rate == RATE and half.seconds == 1.0
    assert np.abs(half.samples_N - expected)[100:-100].max() < 1e-2
    same = Sound(t, RATE)
    assert resampled(same, RATE) is same


def test_log_mel_is_that_of_a_plain_fourier_sum():
    frame = noise(WINDOW)
    n = np.arange(WINDOW)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / WINDOW)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(FOURIER // 2 + 1), n) / FOURIER)
    expected = np.log(mel_filters() @ np.abs(waves @ (frame * window)) ** 2 + 1e-6)
    np.testing.assert_allclose(log_mel(frame[None])[0], expected, rtol=1e-9)
    filters = mel_filters()
    assert filters.shape == (MELS, 129) and filters.max() <= 1 and (filters.sum(1) > 0.5).all()
    assert (np.diff((filters * np.arange(129)).sum(1) / filters.sum(1)) > 0).all()


def test_a_stream_hears_the_same_bits_as_a_file_holds():
    samples = noise(3_333)
    whole = features(samples, SCALE)
    assert whole.shape == (1 + (3_333 - WINDOW) // HOP, MELS) and whole.dtype == np.float32
    for sizes in ([1], [HOP], [7, 500, 3], [5000]):
        ear, heard, begin = Ear(SCALE), [], 0
        while begin < len(samples):
            size = sizes[begin % len(sizes)]
            heard += list(ear.feed(samples[begin : begin + size]))
            begin += size
        assert np.array_equal(np.stack(heard), whole)
    # No frame knows what comes after it, and all at once gives what one by one does, but for rounding.
    assert np.array_equal(features(np.concatenate([samples[:1_000], noise(900, 1)]), SCALE)[:10], whole[:10])
    at_once = SCALE.apply(levelled(log_mel(frames_of(samples)))[0])
    np.testing.assert_allclose(at_once, whole, rtol=1e-5, atol=1e-6)
    assert features(noise(50), SCALE).shape == (1, MELS)


def test_loudness_is_of_no_matter():
    quiet = np.concatenate([np.zeros(300), noise(2_000)])
    soft, loud = (levelled(log_mel(frames_of(quiet * factor)))[0] for factor in (0.3, 3.0))
    np.testing.assert_allclose(soft, loud, atol=0.02)
    assert soft.max() == 0.0
    after = levelled(log_mel(frames_of(np.concatenate([quiet, np.zeros(300)]))))[0]
    assert (after[-1] == -RANGE).all()


def test_scales_have_mean_0_and_deviation_1_and_are_checked():
    values = 3 + 2 * np.random.default_rng(0).standard_normal((500, MELS))
    scaled = scale_of(values).apply(values)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(0), 1, atol=1e-5)
    for mean, deviation in (((0.0,), (1.0,) * MELS), ((0.0,) * MELS, (0.0,) * MELS), ((float("nan"),) * MELS,) * 2):
        with pytest.raises(ValueError, match=f"expected {MELS} finite numbers"):
            Scale(mean, deviation)


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


def test_augmentation_is_decided_by_the_seed_and_keeps_the_form():
    samples = noise(2_000)
    first, again, other = (augmented(samples, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first[:5], other[:5])
    for seed in range(20):
        made = augmented(noise(600, seed), np.random.default_rng(seed))
        assert made.shape[1] == MELS and len(made) >= 1 and np.isfinite(made).all()
        assert made.max() <= 0 and made.min() >= -RANGE


def random_sequences(count: int = 40, seed: int = 0) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 60, (count,), generator=generator).tolist()
    frames = [torch.randn(length, 5, generator=generator) for length in lengths]
    return Sequences(frames, torch.randint(3, (count,), generator=generator))


def test_padding_and_the_number_in_a_call_change_no_label():
    sequences = random_sequences()
    torch.manual_seed(0)
    model = FrameClassifier(5, (6, 4), 3, dropout=0.5).double()
    doubled = Sequences([x.double() for x in sequences.frames], sequences.classes_N)
    one = labels(model, doubled)
    assert torch.equal(labels(model, doubled, batch=7), one) and model.training
    right = sum(
        int(model.eval()(x[:, None])[:, 0].mean(0).argmax()) == int(y)
        for x, y in zip(doubled.frames, doubled.classes_N)
    )
    assert accuracy(model, doubled) == right / 40
    x_TBF, lengths_B, _ = doubled.batch([3, 8])
    pooled_BC = mean_logits(model(x_TBF), lengths_B)
    for n, sequence in enumerate((3, 8)):
        alone_TC = model(doubled.frames[sequence][:, None])[:, 0]
        torch.testing.assert_close(pooled_BC[n], alone_TC.mean(0), rtol=1e-12, atol=1e-12)


def test_an_epoch_takes_every_example_once_in_one_of_its_forms():
    forms = [random_sequences(), random_sequences()]
    forms[1] = Sequences([x + 100 for x in forms[0].frames], forms[0].classes_N)
    objective = FrameClassification(forms, batch_size=10, seed=3)
    seen, shifted, spans = [], 0, []
    for step in range(4):
        x_TBF, lengths_B, classes_B = objective.batch(step)
        assert all(torch.equal(a, b) for a, b in zip(objective.batch(step), (x_TBF, lengths_B, classes_B)))
        spans.append(int(lengths_B.max() - lengths_B.min()))
        for n, length in enumerate(lengths_B.tolist()):
            own = x_TBF[:length, n]
            shifted += bool(own.mean() > 50)
            plain = own - 100 * (own.mean() > 50)
            (which,) = [m for m, x in enumerate(forms[0].frames) if len(x) == length and (x - plain).abs().max() < 1e-3]
            assert classes_B[n] == forms[0].classes_N[which] and (x_TBF[length:, n] == 0).all()
            seen.append(which)
    assert sorted(seen) == list(range(40)) and 8 < shifted < 32
    assert sum(spans) / 4 < 35  # of 57
    first = [objective.batch(step)[2].tolist() for step in range(4)]
    assert first != [objective.batch(step)[2].tolist() for step in range(4, 8)]


def test_masks_hide_whole_bands_of_a_sequence():
    ones = Sequences([torch.ones(4, 20) for _ in range(64)], torch.zeros(64, dtype=torch.long))
    x_TBF, _, _ = FrameClassification([ones], 64, masked=6).batch(0)
    hidden_B = (x_TBF == 0).all(0).sum(1)
    assert torch.equal((x_TBF == 0).any(0), (x_TBF == 0).all(0))
    assert 0 < hidden_B.double().mean() < 12 and hidden_B.max() <= 14 and len(set(hidden_B.tolist())) > 3


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished smoke run, made once."""
    folder = tmp_path_factory.mktemp("spoken")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SPARSERNN_DATA", raising=False)
        assert main(["run", "spoken-digits", "--scale", "smoke"]) == 0
    return folder / "runs" / "spoken-digits" / "smoke-seed0"


def test_a_teacher_draws_its_pupil_to_its_own_outputs():
    torch.manual_seed(0)
    frames = Sequences([torch.randn(n % 5 + 3, 6) for n in range(20)], torch.arange(20) % 4)
    pupil, teacher = nn.Linear(6, 4), nn.Linear(6, 4)
    plain = FrameClassification([frames], 10)
    batch = plain.batch(0)
    right = plain.loss(pupil, batch, None)[0]
    alone = Distillation([frames], 10, teacher=teacher, share=0.0).loss(pupil, batch, None)[0]
    assert torch.equal(alone, right)
    own = Distillation([frames], 10, teacher=copy.deepcopy(pupil), share=0.9).loss(pupil, batch, None)[0]
    assert torch.allclose(own, 0.1 * right)  # nothing to learn from itself

    taught = Distillation([frames], 10, teacher=teacher, share=0.9, temperature=1.0).loss(pupil, batch, None)[0]
    ours, theirs = (mean_logits(net(batch[0]), batch[1]).softmax(1) for net in (pupil, teacher))
    apart = (theirs * (theirs / ours).log()).sum(1).mean()
    assert torch.allclose(taught, 0.1 * right + 0.9 * apart)
    taught.backward()
    assert pupil.weight.grad is not None and teacher.weight.grad is None


def test_the_recipe_from_dense_to_int8(run_folder):
    rows = {r.row: r.measured for r in collect(run_folder / "results")}
    assert set(rows) == set(SpokenDigits.labels)
    for row in ("fast", "blocks", "bfloat16", "int8"):
        assert rows[row]["stream_same_labels"] == rows[row]["stream_recordings"] == 160
    for row in SpokenDigits.labels:
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
