"""The mIoU that the SED paper publishes.

Source: B. Xie et al., "SED: A Simple Encoder-Decoder for Open-Vocabulary Semantic Segmentation", CVPR 2024
(arXiv 2311.15537), and the table in the README of https://github.com/xb534/SED: all categories ("none"), and
"fast" with category early rejection of k = 8 ("topk:8").
"""

# By the data sets' names here: A-847, PC-459, A-150, PC-59, PAS-20.
DATA = ("ade847", "pc459", "ade150", "pc59", "voc20")

MIOU = {
    ("sed-b", "none"): (11.2, 18.6, 31.8, 57.7, 94.4),
    ("sed-b", "topk:8"): (11.4, 18.6, 31.6, 57.3, 94.4),
    ("sed-l", "none"): (13.7, 22.1, 35.3, 60.9, 96.1),
    ("sed-l", "topk:8"): (13.9, 22.6, 35.2, 60.6, 96.1),
}


def published_miou(preset: str, rejection: str, data: str) -> float | None:
    """mIoU in percent of a preset on the validation split of a set; None where none is published.

    Args:
        preset: for example "sed-b".
        rejection: policy as on the command line.
        data: name of the set.
    """
    row = MIOU.get((preset, rejection))
    return None if row is None or data not in DATA else row[DATA.index(data)]
