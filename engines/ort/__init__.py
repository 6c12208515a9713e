"""The stages of a bundle on ONNX Runtime."""
