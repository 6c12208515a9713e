"""Videos, segmented frame by frame with PyAV; neither PyTorch nor the onnx package is needed."""

from .segment import VideoReport, segment_video

__all__ = ["VideoReport", "segment_video"]
