"""Bundles and the engines that run their stages. Needs neither PyTorch nor the onnx package."""
