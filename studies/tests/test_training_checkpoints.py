"""Checkpoints of a training: what they hold, and those that cannot be used."""

import pytest
import torch
from safetensors.torch import save_file

from sparsernn_studies import checkpoint
from sparsernn_studies.checkpoint import CheckpointError
from sparsernn_studies.models import CharacterLSTM
from sparsernn_studies.train import Training, train
from test_training import SETTINGS, STEPS, objective, run_training


def test_checkpoint_of_another_training_is_refused(tmp_path):
    run_training(tmp_path)
    with pytest.raises(CheckpointError, match=r"is of a training with learning_rate = 0\.003, this one has 0\.1"):
        run_training(tmp_path, Training(steps=STEPS, warm_up=5, learning_rate=0.1))
    other = CharacterLSTM(9, 4, 11)
    before = [p.clone() for p in other.parameters()]
    with pytest.raises(
        CheckpointError, match=r"is of another model: lstm\.weight_ih_l0 has shape \(40, 4\), here \(44"
    ):
        train(other, objective(), SETTINGS, seed=3, folder=tmp_path)
    assert all(torch.equal(p, q) for p, q in zip(other.parameters(), before))


def test_truncated_and_foreign_checkpoints_are_named(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    run_training(tmp_path)
    content = file.read_bytes()
    for length in (0, 1, 7, 8, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is truncated or not a checkpoint"):
            run_training(tmp_path)
    save_file({"a": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match="not a training checkpoint: its field 'format' is None"):
        run_training(tmp_path)
    header = {"format": checkpoint.FORMAT, "version": "99", "tree": "{}"}
    save_file({"a": torch.zeros(2)}, file, metadata=header)
    with pytest.raises(CheckpointError, match="has version '99'; this release reads version 1"):
        run_training(tmp_path)
    save_file(
        {"a": torch.zeros(2)}, file, metadata={**header, "version": "1", "tree": '{"map": [["x", {"tensor": "b"}]]}'}
    )
    with pytest.raises(CheckpointError, match="truncated or not a checkpoint"):
        run_training(tmp_path)
    save_file({"a": torch.zeros(2)}, file, metadata={**header, "version": "1", "tree": '{"map": []}'})
    with pytest.raises(CheckpointError, match="lacks the fields"):
        run_training(tmp_path)


def test_a_checkpoint_with_an_odd_field_is_named(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    run_training(tmp_path)
    kept = checkpoint.read(file)
    for field in ("model", "optimizer", "step", "history", "random", "settings"):
        for odd in (None, {"x": 1}, torch.ones(2)):
            checkpoint.write(file, {**kept, field: odd})
            with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors (does not fit|is of|lacks)"):
                run_training(tmp_path)


def test_checkpoints_hold_nested_state_exactly(tmp_path):
    state = {
        "numbers": [1, 2.5e-17, -0.0, True, None, "text"],
        3: (torch.arange(3), {"deep": torch.tensor(1.5)}),
        "shared": [torch.zeros(2)] * 2,
    }
    checkpoint.write(tmp_path / "c", state)
    again = checkpoint.read(tmp_path / "c")
    assert again["numbers"] == state["numbers"] and again["numbers"][3] is True
    assert torch.equal(again[3][0], torch.arange(3)) and again[3][1]["deep"].dtype == torch.float32
    with pytest.raises(TypeError, match=r"state\.what is a set"):
        checkpoint.write(tmp_path / "c", {"what": {1}})
    assert checkpoint.read(tmp_path / "c")["numbers"] == state["numbers"]
