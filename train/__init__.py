"""Training: a small CLIP on captioned scenes where the recipe asks for it, then SED on a data set.

`run.train` is a whole run and the place to start reading; `loop.train_segmentation` is the training loop.

To add a data set in image and label files, write its `FolderLayout`s and its entry of `PUBLISHED` in
`datasets/published.py`, its reader in `datasets/labels.py` if its label files have a format of their own, and
its names as a JSON list in `runtime/vocabularies/`. A set that is not made of files is a `Dataset`
(`datasets/dataset.py`), which `datasets/opening.py` opens by name, as `datasets/scenes.py` is.
"""
