"""Sessions share one arena: a second stage that needs no more than the first leaves the process as it was."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

MIB = 2**20

OPEN_AND_RUN = """
import sys
from pathlib import Path
import numpy as np
from sed_trt.engines.ort.session import CPU_PROVIDER, open_session

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))

model = Path(sys.argv[1])
values = np.ones((32, 2**20), np.float32)
sessions = [open_session(model, model, 1, [CPU_PROVIDER]) for _ in range(3)]
for session in sessions:
    for _ in range(2):
        session.run(None, {"x": values})
    print(resident())
"""


def _summing_graph(path: Path) -> None:
    """x (N, 1 Mi) to the sum of exp(x); exp(x) takes 4 MiB for each of the N."""
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("ReduceSum", ["e"], ["y"], keepdims=0),
    ]
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", MIB])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    graph = helper.make_graph(nodes, "sum", *ends)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_stages_share_one_arena(tmp_path: Path) -> None:
    _summing_graph(tmp_path / "sum.onnx")
    done = subprocess.run(
        [sys.executable, "-c", OPEN_AND_RUN, str(tmp_path / "sum.onnx")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    resident = np.array(done.stdout.split(), dtype=int)
    # The intermediate value of one run is 128 MiB.
    assert resident[2] - resident[0] < 64
