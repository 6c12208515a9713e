"""The stages of a bundle on TensorRT and TensorRT-RTX."""
