"""Segmentation from a bundle, with neither PyTorch nor the onnx package."""

from .pipeline import EncodedImage
from .rejection import Budget, KeepAll, MinPixels, Rejection, TopK, parse_rejection
from .result import Result
from .segmenter import Segmenter
from .stream import StreamItem
from .vocabulary import Vocabulary, parse_names, published, read_vocabulary

__all__ = [
    "Budget",
    "EncodedImage",
    "KeepAll",
    "MinPixels",
    "Rejection",
    "Result",
    "Segmenter",
    "StreamItem",
    "TopK",
    "Vocabulary",
    "parse_names",
    "parse_rejection",
    "published",
    "read_vocabulary",
]
