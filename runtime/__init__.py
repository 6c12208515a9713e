"""Segmentation from a bundle, with neither PyTorch nor the onnx package."""

from .pipeline import EncodedPicture
from .rejection import Budget, KeepAll, MinPixels, Rejection, TopK, parse_rejection
from .result import Result
from .segmenter import Segmenter
from .stream import StreamItem
from .vocabularies import published
from .vocabulary import Vocabulary, read_vocabulary

__all__ = [
    "Budget",
    "EncodedPicture",
    "KeepAll",
    "MinPixels",
    "Rejection",
    "Result",
    "Segmenter",
    "StreamItem",
    "TopK",
    "Vocabulary",
    "parse_rejection",
    "published",
    "read_vocabulary",
]
