"""sed-trt: open-vocabulary segmentation with SED, exported per stage and run without PyTorch."""

__version__ = "0.1.0"
