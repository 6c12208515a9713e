"""Runs that are killed, resumed, or spread over processes end as if nothing had happened."""

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from timm.layers import DropPath
from timm.models.convnext import ConvNeXtBlock

from sed_trt.errors import InputError
from sed_trt.model import SED
from sed_trt.tests.fakes.training_data import ACCELERATE, TORCHRUN, options_of, small, start
from sed_trt.train import run as whole_run
from sed_trt.train.checkpoint import Phase, Position, RunFolder, positions
from sed_trt.train.run import train

STEPS = 80


def assert_same_end(one: Path, other: Path, steps: int) -> None:
    """The weights, the optimizer, PyTorch's random numbers and the log are equal bit by bit."""
    assert_same_tensors(load_file(one / "model.safetensors"), load_file(other / "model.safetensors"))
    ends = [each / "checkpoints" / Position(Phase.STEP, steps).folder for each in (one, other)]
    assert_same_tensors(*(load_file(end / "model.safetensors") for end in ends))
    states = [torch.load(end / "optimizer.bin")["state"] for end in ends]
    assert states[0].keys() == states[1].keys()
    for key, values in states[0].items():
        assert_same_tensors(values, states[1][key])
    names = [sorted(path.name for path in end.glob("random_states_*.pkl")) for end in ends]
    assert names[0] and names[0] == names[1]
    for name in names[0]:
        assert torch.equal(*(random_state(end / name) for end in ends))
    logs = [
        [(line["phase"], line["step"], line["loss"]) for line in map(json.loads, each.open())]
        for each in (one / "log.jsonl", other / "log.jsonl")
    ]
    assert logs[0] == logs[1]


def assert_same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Both have the same names and values."""
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def random_state(path: Path) -> torch.Tensor:
    """The state of PyTorch's random numbers in a file of Accelerate's."""
    state: torch.Tensor = torch.load(path, weights_only=False)["torch_manual_seed"]
    return state


def steps_logged(folder: Path) -> int:
    """How many steps a run has told of."""
    log = folder / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_killed_run_resumes_bit_exactly(tmp_path: Path, data: Path) -> None:
    config = small(data, steps=STEPS, save_every=20)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config, whole, gpus=0)
    child = start([*options_of(config, tmp_path / "config.yaml"), "-o", str(broken)])
    moment = random.randint(21, 60)
    while child.poll() is None and steps_logged(broken) < moment:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, f"the run ended before it was killed at step {moment}"
    assert 20 <= positions(broken / "checkpoints")[-1].step < STEPS
    train(config, broken, resume=True, gpus=0)
    assert_same_end(whole, broken, STEPS)
    assert [each.step for each in positions(broken / "checkpoints")] == [STEPS - 20, STEPS]
    assert not list(broken.glob("checkpoints/.*"))


def test_stochastic_depth_resumes_bit_exactly(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_or_init = whole_run.load_or_init

    def dropping(*arguments: Any) -> SED:
        """sed-tiny, whose image encoder drops blocks at random as sed-b's does."""
        model = load_or_init(*arguments)
        for block in model.clip.visual.trunk.modules():
            if isinstance(block, ConvNeXtBlock):
                block.drop_path = DropPath(0.5)
        return model

    monkeypatch.setattr(whole_run, "load_or_init", dropping)
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
    files = sorted((tmp_path / "two").glob("checkpoints/step-000003/random_states_*"))
    assert [path.name for path in files] == ["random_states_0.pkl", "random_states_1.pkl"]
    # Stochastic depth draws from these.
    assert not torch.equal(*(random_state(path) for path in files))


def test_pretraining_resumes_within_and_after_its_phases(tmp_path: Path, data: Path) -> None:
    pretraining = {"text_steps": 3, "text_batch": 4, "clip_steps": 3, "clip_batch": 4, "clip_size": 64}
    config = small(data, steps=2, save_every=2, keep=9, **pretraining)
    whole = tmp_path / "whole"
    train(config, whole, gpus=0)
    every = positions(whole / "checkpoints")
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


def test_resume_refuses_what_it_cannot_resume(tmp_path: Path, data: Path) -> None:
    config = small(data, steps=1)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(InputError, match="holds no run to go on with"):
        train(config, run.path, resume=True, gpus=0)
    train(config, run.path, gpus=0)
    with pytest.raises(InputError, match="holds a run already; go on with --resume"):
        train(config, run.path, gpus=0)
    with pytest.raises(InputError, match=r"was started with lr 0\.001, not 0\.002"):
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
    for name in ("random_states_0.pkl", "optimizer.bin", "model.safetensors"):
        path = run.checkpoints / "step-000001" / name
        content = path.read_bytes()
        path.write_bytes(content[:1000])
        with pytest.raises(
            InputError, match=r"step-000001.*: cannot be read.*; remove this checkpoint to resume"
        ):
            train(config, run.path, resume=True, gpus=0)
        path.write_bytes(content)


def test_what_a_sudden_end_left_is_no_checkpoint(tmp_path: Path, data: Path) -> None:
    run = RunFolder(tmp_path / "run")
    train(small(data, steps=2, save_every=1, keep=9), run.path, gpus=0)
    # Half written, and half removed.
    (run.checkpoints / ".step-000003.partial").mkdir()
    (run.checkpoints / "step-000001").replace(run.checkpoints / ".step-000001.old.partial")
    assert positions(run.checkpoints) == [Position(Phase.STEP, 2)]
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
    assert [each.step for each in positions(run.checkpoints)] == [2]


def test_another_number_of_processes_is_told(
    tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, config = RunFolder(tmp_path / "run"), small(data, steps=1)
    train(config, run.path, gpus=0)
    train(config, run.path, resume=True, gpus=0)
    assert not caplog.records
    checkpoint = run.checkpoints / "step-000001"
    shutil.copy(checkpoint / "random_states_0.pkl", checkpoint / "random_states_1.pkl")
    train(config, run.path, resume=True, gpus=0)
    (record,) = caplog.records
    message = "random numbers of 2 processes, but 1 run: the run does not resume bit-exactly"
    assert message in record.getMessage()


@pytest.mark.slow
def test_two_processes_resume_bit_exactly(tmp_path: Path, data: Path) -> None:
    config = small(data, steps=6, batch=4, accumulate=2, workers=1, checkpointing=True, save_every=3)
    options = options_of(config, tmp_path / "config.yaml")
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    assert start([*options, "-o", str(whole.path)], processes=2).wait() == 0
    broken.write(config)
    shutil.copytree(whole.checkpoints / "step-000003", broken.checkpoints / "step-000003")
    shutil.copy(whole.log, broken.log)
    assert start([*options, "-o", str(broken.path), "--resume"], processes=2).wait() == 0
    assert_same_end(whole.path, broken.path, 6)
