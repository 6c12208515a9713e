"""Host memory of ONNX Runtime's sessions."""

import contextlib
import ctypes
import functools
import sys
from typing import Any

# Pages of it that nobody writes to cost nothing, and the stages of sed-b fit in without a second piece.
FIRST_PIECE = 1 << 30


def share_arena(options: Any) -> None:
    """Let a session with these options take its memory from one arena that the whole process shares.

    Otherwise each stage keeps an arena as large as its largest run, although the stages run in turn. It would
    also plan the memory of shapes that it meets a second time anew, as one block: as much memory again, and a
    second picture twice as slow as the third.
    """
    _register_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False


def release_unused() -> None:
    """Give back to the system what loading a graph took and freed, where the C library can do so."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def _register_arena() -> None:
    import onnxruntime

    info = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # Some versions refuse a second one; that of the program around us serves as well.
    with contextlib.suppress(Exception):
        onnxruntime.create_and_register_allocator(
            info, onnxruntime.OrtArenaCfg({"initial_chunk_size_bytes": FIRST_PIECE})
        )
