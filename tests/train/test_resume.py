"""Runs that are killed, resumed, or spread over processes end as if nothing had happened."""

import json
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from timm.layers import DropPath
from timm.models.convnext import ConvNeXtBlock

from sed_trt.errors import InputError
from sed_trt.model import SED
from sed_trt.tests.fakes.training_data import ACCELERATE, TORCHRUN, options_of, small, start, write_own_data
from sed_trt.train import run as whole_run
from sed_trt.train.checkpoint import PHASES, Point, RunFolder, load_state, points, read
from sed_trt.train.run import train

STEPS = 200


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with as many threads as the processes that are started here do: sums depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A small own data set."""
    return write_own_data(tmp_path / "data")


def assert_same_end(one: Path, other: Path, steps: int) -> None:
    """The weights, the optimizer, PyTorch's random numbers and the log are equal to the bit."""
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    last = Point(PHASES.index("step"), steps)
    states = [load_state(RunFolder(each).checkpoints, last)["optimizer"]["state"] for each in (one, other)]
    for key, values in states[0].items():
        assert all(torch.equal(value, states[1][key][name]) for name, value in values.items())
    ends = [each / "checkpoints" / last.folder for each in (one, other)]
    names = [sorted(path.name for path in end.glob("random-*.pt")) for end in ends]
    assert names[0] and names[0] == names[1]
    for name in names[0]:
        drawn = [read(end / name)["torch"] for end in ends]
        assert torch.equal(drawn[0], drawn[1])
    logs = [
        [(line["phase"], line["step"], line["loss"]) for line in map(json.loads, each.open())]
        for each in (one / "log.jsonl", other / "log.jsonl")
    ]
    assert logs[0] == logs[1]


def steps_logged(folder: Path) -> int:
    """How many steps a run has told of."""
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_killed_run_resumes_to_the_bit(tmp_path: Path, data: Path) -> None:
    config = small(data, steps=STEPS, save_every=50)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config, whole, gpus=0)
    child = start([*options_of(config, tmp_path / "config.yaml"), "-o", str(broken)])
    moment = random.randint(51, 190)
    while child.poll() is None and steps_logged(broken) < moment:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, f"the run ended before it was killed at step {moment}"
    assert 50 <= points(broken / "checkpoints")[-1].step < STEPS
    train(config, broken, resume=True, gpus=0)
    assert_same_end(whole, broken, STEPS)
    assert [each.step for each in points(broken / "checkpoints")] == [STEPS - 50, STEPS]
    assert not list(broken.glob("checkpoints/.*"))


def test_stochastic_depth_resumes_to_the_bit(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = whole_run.begun

    def dropping(*arguments: Any) -> SED:
        """sed-tiny, whose image encoder drops blocks at random as sed-b's does."""
        model = begun(*arguments)
        for block in model.clip.visual.trunk.modules():
            if isinstance(block, ConvNeXtBlock):
                block.drop_path = DropPath(0.5)
        return model

    monkeypatch.setattr(whole_run, "begun", dropping)
    config = small(data, steps=6, save_every=3)
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    train(config, whole.path, gpus=0)
    broken.write(config)
    shutil.copytree(whole.checkpoints / "step-000003", broken.checkpoints / "step-000003")
    shutil.copy(whole.log, broken.log)
    train(config, broken.path, resume=True, gpus=0)
    assert_same_end(whole.path, broken.path, 6)


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_train_as_one_with_twice_the_batch(
    launcher: tuple[str, ...], tmp_path: Path, data: Path
) -> None:
    config = small(data, steps=3, batch=4, seed=3)
    options = options_of(config, tmp_path / "config.yaml")
    child = start([*options, "--accumulate", "2", "-o", str(tmp_path / "two")], 2, launcher)
    train(config, tmp_path / "one", gpus=0)
    _, errors = child.communicate()
    assert child.returncode == 0, errors
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5
    logs = [list(map(json.loads, (tmp_path / name / "log.jsonl").open())) for name in ("one", "two")]
    for line, other in zip(*logs, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], abs=1e-5)
        # The weights alone would not show a wrong scale: clipping and Adam both take it out.
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    files = sorted((tmp_path / "two").glob("checkpoints/step-000003/random-*"))
    assert [path.name for path in files] == ["random-0.pt", "random-1.pt"]
    # Stochastic depth draws from these.
    assert not torch.equal(*(read(path)["torch"] for path in files))


def test_pretraining_resumes_within_and_after_its_phases(tmp_path: Path, data: Path) -> None:
    pretraining = {"text_steps": 3, "text_batch": 4, "clip_steps": 3, "clip_batch": 4, "clip_size": 64}
    config = small(data, steps=2, save_every=2, keep=9, **pretraining)
    whole = tmp_path / "whole"
    train(config, whole, gpus=0)
    every = points(whole / "checkpoints")
    assert [each.folder for each in every] == [
        *("text-000002", "text-000003", "clip-000002", "clip-000003", "step-000002")
    ]
    for point in (every[0], *every[2:4]):
        again = tmp_path / point.folder
        run = RunFolder(again)
        run.write(config)
        shutil.copytree(whole / "checkpoints" / point.folder, run.checkpoints / point.folder)
        run.log.write_text((whole / "log.jsonl").read_text() + '{"cut sho')
        train(config, again, resume=True, gpus=0)
        assert_same_end(whole, again, 2)


def test_resume_refuses_what_it_cannot_go_on_with(tmp_path: Path, data: Path) -> None:
    config = small(data, steps=1)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(InputError, match="holds no run to go on with"):
        train(config, run.path, resume=True, gpus=0)
    train(config, run.path, gpus=0)
    with pytest.raises(InputError, match="holds a run already; go on with --resume"):
        train(config, run.path, gpus=0)
    with pytest.raises(InputError, match=r"was begun with lr 0\.001, not 0\.002"):
        train(small(data, steps=1, lr=2e-3), run.path, resume=True, gpus=0)
    train(small(data, steps=1, keep=1, log_every=7), run.path, resume=True, gpus=0)
    settings = run.settings.read_text()
    run.settings.unlink()
    with pytest.raises(
        InputError, match=r"holds checkpoints of a run whose config\.yaml is gone; name another"
    ):
        train(config, run.path, gpus=0)
    # What the file leaves out is the recipe's, not the published one's.
    run.settings.write_text(settings.replace("\nlr: 0.001\n", "\n"))
    train(config, run.path, resume=True, gpus=0)
    state = run.checkpoints / "step-000001" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"state\.pt: cannot be read .* remove its folder"):
        train(config, run.path, resume=True, gpus=0)


def test_what_a_sudden_end_left_is_no_checkpoint(tmp_path: Path, data: Path) -> None:
    run = RunFolder(tmp_path / "run")
    train(small(data, steps=2, save_every=1, keep=9), run.path, gpus=0)
    # Half written, and half removed.
    (run.checkpoints / ".step-000003.partial").mkdir()
    (run.checkpoints / "step-000001").replace(run.checkpoints / ".step-000001.old.partial")
    assert points(run.checkpoints) == [Point(PHASES.index("step"), 2)]
    run.settings.write_text(run.settings.read_text().replace("steps: 2\n", "steps: 3\n"))
    train(small(data, steps=3, save_every=1, keep=9), run.path, resume=True, gpus=0)
    assert sorted(each.name for each in run.checkpoints.iterdir()) == ["step-000002", "step-000003"]


def test_a_checkpoint_is_removed_under_another_name(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path, **_: object) -> None:
        raise KeyboardInterrupt(folder.name)

    run = RunFolder(tmp_path / "run")
    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"^\.step-000001\."):
        train(small(data, steps=2, save_every=1, keep=1), run.path, gpus=0)
    assert [each.step for each in points(run.checkpoints)] == [2]


def test_another_number_of_processes_is_told(
    tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, config = RunFolder(tmp_path / "run"), small(data, steps=1)
    train(config, run.path, gpus=0)
    train(config, run.path, resume=True, gpus=0)
    assert not caplog.records
    checkpoint = run.checkpoints / "step-000001"
    shutil.copy(checkpoint / "random-0.pt", checkpoint / "random-1.pt")
    train(config, run.path, resume=True, gpus=0)
    (record,) = caplog.records
    assert (
        "random numbers of 2 processes, and 1 run now: the run goes on, but not to the bit" in record.message
    )


@pytest.mark.slow
def test_two_processes_resume_to_the_bit(tmp_path: Path, data: Path) -> None:
    config = small(data, steps=6, batch=4, accumulate=2, workers=1, checkpointing=True, save_every=3)
    options = options_of(config, tmp_path / "config.yaml")
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    assert start([*options, "-o", str(whole.path)], processes=2).wait() == 0
    broken.write(config)
    shutil.copytree(whole.checkpoints / "step-000003", broken.checkpoints / "step-000003")
    shutil.copy(whole.log, broken.log)
    assert start([*options, "-o", str(broken.path), "--resume"], processes=2).wait() == 0
    assert_same_end(whole.path, broken.path, 6)
