"""mIoU of checkpoints and bundles, on data sets and on procedural scenes."""
