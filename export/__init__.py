"""From a checkpoint to a bundle: one ONNX graph per stage, verified against PyTorch."""

from .export import VerificationError, export_bundle
from .verification import Check

__all__ = ["Check", "VerificationError", "export_bundle"]
