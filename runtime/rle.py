"""Label maps as COCO run lengths: one compressed mask per category, in the format of pycocotools."""

import numpy as np

# A compressed count is written in groups of 5 bits, lowest first, each as one character from "0" on.
_GROUP_BITS = 5
_FIRST_CHARACTER = ord("0")


def encode_labels(labels: np.ndarray) -> dict[int, str]:
    """The mask of every category that is present, as the string `counts` of COCO's compressed RLE.

    Args:
        labels: category index of every pixel, any integer type, (H, W).

    Returns:
        Category index, rising, to `counts`. With `"size": [H, W]` beside it, pycocotools decodes it.
    """
    # COCO goes down the columns.
    flat = labels.ravel(order="F")
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    ends = np.append(starts[1:], flat.size)
    owners = flat[starts]
    order = np.argsort(owners, kind="stable")
    categories, firsts = np.unique(owners[order], return_index=True)
    return {
        int(category): _compressed(_counts(starts[runs], ends[runs], flat.size))
        for category, runs in zip(categories, np.split(order, firsts[1:]), strict=True)
    }


def _counts(starts: np.ndarray, ends: np.ndarray, size: int) -> np.ndarray:
    """Lengths of the runs of zeros and ones in turn, zeros first, of a mask of `size` pixels."""
    edges = np.stack((starts, ends), axis=1).ravel()
    counts = np.diff(edges, prepend=0, append=size)
    return counts[:-1] if counts[-1] == 0 else counts


def _compressed(counts: np.ndarray) -> str:
    """COCO's text for counts: differences to the count before last, in groups of bits with sign extension."""
    rest = counts.astype(np.int64)
    rest[3:] -= counts[1:-2]
    characters, written = [], []
    unfinished = np.ones(len(rest), dtype=bool)
    while unfinished.any():
        group = rest & 31
        rest = rest >> _GROUP_BITS
        # The highest bit of the last group is the sign; what is left then is all sign.
        more = unfinished & (rest != np.where(group & 16, -1, 0))
        characters.append(group + 32 * more + _FIRST_CHARACTER)
        written.append(unfinished)
        unfinished = more
    table, mask = np.stack(characters, axis=1), np.stack(written, axis=1)
    return table[mask].astype(np.uint8).tobytes().decode("ascii")
