"""WAV files, and features that a stream and a file share."""

import random

import numpy as np
import pytest

from sounds import noise, wav
from sparsernn_studies.data import DataError
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
