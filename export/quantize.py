"""8-bit matrix products for the CPU, by ONNX Runtime's dynamic quantisation.

Weights become int8 with one scale per output channel; activations become uint8 with one scale per product,
found while it runs. That needs no calibration data, and was measured to be faster and closer to FP32 than
scales from calibration. Its price: pictures of one batch share a scale, so the runtime takes them one by one.
"""

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

INT8_STAGES = {"image": "most of its time is in products with weights; of the decoder's time little is"}


def quantize_graph(path: Path, metadata: Mapping[str, str]) -> None:
    """Replace an FP32 graph by one whose products with weights are 8-bit; inputs and outputs stay FP32.

    Args:
        path: of the graph.
        metadata: goes into the new graph's metadata_props.
    """
    with tempfile.TemporaryDirectory(prefix="sed-trt-") as folder:
        quantized = Path(folder, path.name)
        # It advises, on the root logger, to run an optimiser first that this graph has no use for.
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            quantize_dynamic(
                path,
                quantized,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
        finally:
            logging.disable(before)
        model = onnx.load(quantized)
    del model.metadata_props[:], model.graph.value_info[:]
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, path)
    onnx.checker.check_model(str(path))
