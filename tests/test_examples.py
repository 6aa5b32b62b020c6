"""examples/training: the same sparse training under every loop ends where the plain loop ends."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sparsernn as srn

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "training"
# Example -> the package it needs, None: torch alone.
LOOPS = {
    "plain_loop": None,
    "gradient_accumulation": None,
    "mixed_precision": None,
    "with_lightning": "lightning",
    "with_transformers": "transformers",
    "with_skorch": "skorch",
}
# Packages warn of their own affairs: of each other's versions, and that a small run could use more workers.
PACKAGES = ("lightning", "lightning_fabric", "pytorch_lightning", "transformers", "skorch", "accelerate")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    *(pytest.mark.filterwarnings(f"ignore:::{package}") for package in PACKAGES),
]


def example(name: str) -> dict[str, Any]:
    """The names that an example defines; skips where its package is missing."""
    if LOOPS[name] is not None:
        pytest.importorskip(LOOPS[name])
    return runpy.run_path(str(FOLDER / f"{name}.py"))


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    """The weights that the plain loop ends with, in float64."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng():
        _, sparsifier = runpy.run_path(str(FOLDER / "plain_loop.py"))["train"]()
    torch.set_default_dtype(torch.float32)
    return {name: value.clone() for name, value in sparsifier.finish().state_dict().items()}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.smoke) if n == "plain_loop" else n for n in LOOPS])
def test_an_example_runs_and_says_what_is_left(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example(name)["main"]()
    assert "23% of the recurrent weights are kept, 13 of 32 units" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in LOOPS if name != "plain_loop"])
def test_every_loop_ends_with_the_weights_of_the_plain_loop(name, plain, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float64)
    _, sparsifier = example(name)["train"]()
    assert sparsifier.steps_done == 150
    trained = sparsifier.finish().state_dict()
    assert list(trained) == list(plain)
    for key, value in plain.items():
        torch.testing.assert_close(trained[key].cpu(), value, rtol=0, atol=1e-9, msg=f"{name}: {key}")


@pytest.mark.parametrize("name", LOOPS)
def test_masks_hold_and_the_small_model_is_the_same_function(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, sparsifier = example(name)["train"]()
    masks = sparsifier.masks
    sparsifier.finish()
    for path, mask in masks.items():
        assert int((model.get_parameter(path)[~mask] != 0).sum()) == 0
    assert 0.15 < sparsifier.density() <= 0.25
    model = model.cpu().eval()
    x = torch.randint(6, (3, 14))
    small = srn.compact(model, x[:2])
    torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-5)
    # Better than chance by far: the symbol before is what a step has to remember.
    right = (small(x).argmax(1)[:, 1:] == x[:, :-1]).float().mean()
    assert right > 0.8


def test_lightning_keeps_the_state_of_the_sparsifier_in_its_checkpoints(tmp_path):
    names = example("with_lightning")
    pl = pytest.importorskip("lightning.pytorch")
    model, data = names["Recall"](), names["data"]()
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    trainer = pl.Trainer(
        max_steps=80,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    training = names["Training"](model, data[:2][0])
    trainer.fit(training, loader)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    options = {"model": names["Recall"](), "example_inputs": data[:2][0]}
    again = names["Training"].load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True, **options)
    assert again.sparsifier.steps_done == 80 and 0 < again.sparsifier.density() < 1
    for path, mask in training.sparsifier.masks.items():
        assert torch.equal(again.sparsifier.masks[path], mask)


def test_two_processes_of_accelerate_have_the_same_masks(tmp_path):
    pytest.importorskip("accelerate")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(FOLDER / "with_accelerate.py")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 processes, the same masks: True" in done.stdout
    assert "23% of the recurrent weights are kept, 13 of 32 units" in done.stdout


def test_the_folder_and_its_page_name_the_same_files():
    files = {path.name for path in FOLDER.glob("*.py")}
    listed = set(re.findall(r"\]\((\w+\.py)\)", (FOLDER / "README.md").read_text(encoding="utf-8")))
    assert listed == files == {f"{name}.py" for name in (*LOOPS, "with_accelerate")}
