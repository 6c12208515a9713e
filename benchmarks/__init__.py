"""Measurements: mIoU, with and without rejection, of checkpoints and bundles."""
