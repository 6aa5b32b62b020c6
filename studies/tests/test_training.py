"""The training loop: seeds, resuming to the bit, kill -9, signals, NaN."""

import itertools
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sparsernn.learn.quantise_aware import quantise_aware
from sparsernn.learn.shrink import Shrink
from sparsernn_studies import checkpoint
from sparsernn_studies.loop import Diverged
from sparsernn_studies.models import CharacterLSTM
from sparsernn_studies.signals import Stopped
from sparsernn_studies.tasks.text import LanguageModelling, Streams
from sparsernn_studies.together import Together
from sparsernn_studies.train import Training, train

STEPS = 40
SETTINGS = Training(steps=STEPS, warm_up=5, checkpoint_every=3)


def make_model() -> CharacterLSTM:
    torch.manual_seed(7)
    return CharacterLSTM(9, 4, 10, dropout=0.2)


def objective() -> LanguageModelling:
    text = torch.randint(9, (900,), generator=torch.Generator().manual_seed(1))
    return LanguageModelling(Streams(text, 4, 8))


def sparsify(model: nn.Module) -> Shrink:
    return Shrink(model, torch.zeros(3, 2, dtype=torch.long), to=0.4, steps=STEPS)


def run_training(folder: Path | None, settings: Training = SETTINGS, **more) -> CharacterLSTM:
    model = make_model()
    train(model, settings=settings, seed=3, folder=folder, **{"objective": objective(), "sparsify": sparsify, **more})
    return model


class StopAt(LanguageModelling):
    """Raises, or sends a signal, at one step."""

    step: int
    action: object

    def batch(self, step, rank=0, world=1):
        if step == self.step:
            self.action()
        return super().batch(step, rank, world)


def stop_at(step: int, action) -> StopAt:
    made = StopAt(objective().streams)
    object.__setattr__(made, "step", step)
    object.__setattr__(made, "action", action)
    return made


def equal_bits(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def whole() -> CharacterLSTM:
    """The model of a training that nobody interrupts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield run_training(None)
    torch.set_num_threads(before)


@pytest.mark.smoke
def test_the_seed_decides_everything(whole, tmp_path):
    torch.manual_seed(12345)
    assert equal_bits(run_training(tmp_path), whole)
    assert not bool((whole.lstm.weight_hh_l0 != 0).all())  # the sparsifier was at work


@pytest.mark.parametrize("step", [1, 3, 17, 30, STEPS - 1])
def test_resumed_after_an_error_is_equal_to_the_bit(whole, tmp_path, step):
    def fail():
        raise OSError("the power went")

    with pytest.raises(OSError, match="power"):
        run_training(tmp_path, objective=stop_at(step, fail))
    assert equal_bits(run_training(tmp_path), whole)
    assert equal_bits(run_training(tmp_path), whole)  # one that is done is only read


def test_several_sparsifiers_go_on_to_the_same_bits_and_all_finish(tmp_path):
    def fail():
        raise OSError("the power went")

    def both(model: nn.Module) -> Together:
        return Together(sparsify(model), quantise_aware(model))

    whole = run_training(None, sparsify=both)
    with pytest.raises(OSError, match="power"):
        run_training(tmp_path, objective=stop_at(17, fail), sparsify=both)
    with pytest.raises(ValueError, match="not the state of a sparsifier"):  # but of two
        run_training(tmp_path)
    assert equal_bits(run_training(tmp_path, sparsify=both), whole)
    for row in whole.lstm.weight_hh_l0.detach().double():  # whole numbers of one step a row, half of them zeros
        numbers = 127 * row / row.abs().max().clamp(min=1e-30)
        torch.testing.assert_close(numbers, numbers.round(), rtol=0, atol=1e-3)
    assert float((whole.lstm.weight_hh_l0 != 0).double().mean()) < 0.6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_leave_a_good_checkpoint(whole, tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=rf"{number.name} after step 12; the same command goes on from") as stopped:
        run_training(tmp_path, objective=stop_at(11, lambda: os.kill(os.getpid(), number)))
    assert stopped.value.signal == number
    assert checkpoint.read(tmp_path / "checkpoint.safetensors")["step"] == 12
    assert signal.getsignal(number) is before
    assert equal_bits(run_training(tmp_path), whole)


def test_trains_outside_the_main_thread(whole):
    models = []
    thread = threading.Thread(target=lambda: models.append(run_training(None)))
    thread.start()
    thread.join()
    assert equal_bits(models[0], whole)


def test_kill_9_and_resume_to_the_bit(whole, trains, tmp_path):
    killed(whole, trains, tmp_path / "run", 2, seed=0)


@pytest.mark.nightly
@pytest.mark.counts("kill_9", 4)
@pytest.mark.parametrize("seed", range(1, 51))
def test_two_hundred_kills_and_resume_to_the_bit(whole, trains, tmp_path, seed, record_property):
    record_property("cases", killed(whole, trains, tmp_path / "run", 4, seed))


# Imports once, and forks a process that trains in each folder whose name it is sent.
TRAINS = """
import os, sys, time, torch
sys.path.insert(0, {tests!r})
from pathlib import Path
import test_training as t
torch.set_num_threads(1)
class Slow(t.LanguageModelling):
    def batch(self, step, rank=0, world=1):
        time.sleep(0.01)
        return super().batch(step, rank, world)
t.run_training(None)  # for what a first training imports
for line in sys.stdin:
    process = os.fork()
    if not process:
        t.run_training(Path(line.rstrip()), objective=Slow(t.objective().streams))
        os._exit(0)
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def trains():
    if sys.platform == "win32":
        pytest.skip("kill -9 and fork")
    command = [sys.executable, "-c", TRAINS.format(tests=str(Path(__file__).parent))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


def killed(whole, trains, folder, count, seed):
    """How many of the kills found the training at work; others came after its end."""
    at_work = 0
    file, source = folder / "checkpoint.safetensors", random.Random(seed)
    for _ in range(count):
        last = file.stat().st_mtime_ns if file.exists() else 0
        print(folder, file=trains.stdin, flush=True)
        process = int(trains.stdout.readline())
        # Killed at some instant after this process has made progress of its own, if it has not ended by then.
        ended = False
        while not ended and not (file.exists() and file.stat().st_mtime_ns != last):
            ended = bool(select.select([trains.stdout], [], [], 0.002)[0])
        time.sleep(source.random() * 0.05)
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        code = int(trains.stdout.readline())
        assert code in (-signal.SIGKILL, 0)
        at_work += code != 0
        checkpoint.read(file)
    assert equal_bits(run_training(folder), whole)
    return at_work


def test_milestones_begin_other_trainings(tmp_path):
    dense, sparse = make_model(), make_model()
    branch = tmp_path / "branch.safetensors"
    train(dense, objective(), SETTINGS, seed=3, milestones={10: branch})
    history = train(sparse, objective(), SETTINGS, seed=3, begin=branch, sparsify=sparsify)
    assert checkpoint.read(branch)["step"] == 10
    assert history.step[0] < 10 < history.step[-1] == STEPS
    again = make_model()
    train(again, objective(), SETTINGS, seed=3, begin=branch)
    assert equal_bits(again, dense)
    assert not equal_bits(sparse, dense)


def test_nan_names_step_and_last_good_checkpoint(tmp_path):
    model = make_model()

    def spoil():
        with torch.no_grad():
            model.head.weight[0, 0] = torch.nan

    with pytest.raises(Diverged, match=r"nan at step 15 of 40 \(last good checkpoint: .*checkpoint\.safetensors\)"):
        train(model, stop_at(14, spoil), SETTINGS, seed=3, folder=tmp_path)
    kept = checkpoint.read(tmp_path / "checkpoint.safetensors")
    assert kept["step"] == 12
    assert all(bool(value.isfinite().all()) for value in kept["model"].values())


def test_weights_that_are_not_finite_do_not_replace_a_good_checkpoint(tmp_path):
    model = make_model()

    def spoil():  # the loss of this step is still finite: the symbol does not occur
        with torch.no_grad():
            model.embedding.weight[8] = torch.inf

    text = torch.randint(8, (900,), generator=torch.Generator().manual_seed(1))
    quiet = stop_at(7, spoil)
    object.__setattr__(quiet, "streams", Streams(text, 4, 8))
    train(model, quiet, SETTINGS, seed=3, folder=tmp_path)
    assert checkpoint.read(tmp_path / "checkpoint.safetensors")["step"] == 6


def test_a_checkpoint_that_holds_a_schedule_as_well_is_taken_up(whole, tmp_path):
    """As those did that were written while torch's scheduler set the learning rate."""

    def fail():
        raise OSError

    with pytest.raises(OSError):
        run_training(tmp_path, objective=stop_at(17, fail))
    file = tmp_path / "checkpoint.safetensors"
    checkpoint.write(file, {**checkpoint.read(file), "schedule": {"last_epoch": 15}})
    assert equal_bits(run_training(tmp_path), whole)


def test_learning_rate_warms_up_and_falls():
    settings = Training(steps=100, warm_up=10, final_rate=0.1)
    rates = [settings.rate(step) for step in range(101)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[100] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


@pytest.mark.nightly
def test_two_processes_end_with_the_same_weights(tmp_path):
    script = tmp_path / "work.py"
    script.write_text(
        "import sys, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from safetensors.torch import load_file, save_file\n"
        "import test_training as t\n"
        "torch.set_num_threads(1)\n"
        "model = t.run_training(Path(sys.argv[1]))\n"
        "import torch.distributed as d\n"
        "save_file(model.state_dict(), f'{sys.argv[1]}/rank{d.get_rank()}')\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, str(script), str(tmp_path / "run")], check=True, env=environment, timeout=250)
    first, second = (load_file(tmp_path / "run" / f"rank{rank}") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert checkpoint.read(tmp_path / "run" / "checkpoint.safetensors")["step"] == STEPS
