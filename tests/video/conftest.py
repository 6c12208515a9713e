"""A segmenter whose stages are a few lines of numpy, and clips."""

from pathlib import Path

import pytest

from sed_trt.runtime import Segmenter
from sed_trt.tests.fakes.bundle import write_fake_bundle
from sed_trt.tests.fakes.engines import FakeEngines
from sed_trt.tests.video.clips import plains, write_clip


@pytest.fixture
def fake_bundle(tmp_path: Path) -> Path:
    """The bundle of `FakeEngines`."""
    return write_fake_bundle(tmp_path / "fake")


@pytest.fixture
def segmenter(fake_bundle: Path) -> Segmenter:
    """Labels pixels by their colour."""
    return Segmenter(fake_bundle, engines=FakeEngines())


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 frames of red, green and blue in turn, with audio, which no test may change."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", plains(12), audio="aac")
