"""How far a build is, from the phases that a library reports."""

import pytest

from sed_trt.engines.build.progress import BuildState, progress_monitor
from sed_trt.tests.fakes.tensorrt import fake_tensorrt


def test_phases_within_phases() -> None:
    state = BuildState()
    monitor = progress_monitor(fake_tensorrt("11.0"), state)
    assert state.progress() == ("", 0.0)
    monitor.phase_start("build", None, 4)
    monitor.step_complete("build", 0)
    assert state.progress() == ("build", 0.25)
    monitor.phase_start("tactics", "build", 2)
    monitor.step_complete("tactics", 0)
    assert state.progress() == ("tactics", 0.375)
    monitor.phase_finish("tactics")
    monitor.step_complete("build", 1)
    assert state.progress() == ("build", 0.5)
    monitor.phase_finish("build")
    assert state.progress() == ("", 0.5)


def test_progress_never_falls() -> None:
    state = BuildState()
    state.start("build", None, 2)
    state.start("first", "build", 1)
    state.step("first", 0)
    assert state.progress()[1] == 0.5
    state.finish("first")
    assert state.progress()[1] == 0.5


@pytest.mark.parametrize("steps", [0, 1])
def test_more_steps_than_were_announced(steps: int) -> None:
    state = BuildState()
    state.start("build", None, steps)
    state.step("build", 5)
    assert state.progress() == ("build", 1.0)


def test_phases_that_were_never_started() -> None:
    state = BuildState()
    assert state.step("unknown", 0)
    state.finish("unknown")
    assert state.progress() == ("", 0.0)


def test_cancelling_stops_the_next_step() -> None:
    state = BuildState()
    monitor = progress_monitor(fake_tensorrt("11.0"), state)
    monitor.phase_start("build", None, 4)
    assert monitor.step_complete("build", 0)
    state.cancelled.set()
    assert not monitor.step_complete("build", 1)


def test_the_real_monitor_is_written_to() -> None:
    module = pytest.importorskip("tensorrt_rtx")
    state = BuildState()
    monitor = progress_monitor(module, state)
    assert isinstance(monitor, module.IProgressMonitor)
    monitor.phase_start("build", None, 2)
    assert state.progress() == ("build", 0.0)
