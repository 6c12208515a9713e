"""Which files the arguments of a command mean, and what to call what is made of them."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import InputError
from ..paths import IMAGE_SUFFIXES, exists, is_file, is_folder, resolved


def expand_inputs(inputs: Iterable[str]) -> list[Path]:
    """Files that `inputs` mean, in order and each once: files, images of folders, globs (`**` recurses).

    A plain path is taken as it is, whether or not it is there.

    Raises:
        InputError: a folder holds no images or cannot be listed, or a glob matches nothing.
    """
    found: dict[Path, Path] = {}
    for text in inputs:
        for path in _expand(text):
            found.setdefault(resolved(path), path)
    return list(found.values())


def distinct_stems(paths: Sequence[Path]) -> list[str]:
    """One output stem per path: its own, or with "-2", "-3" … where an earlier path has it.

    Stems that differ in case only count as equal, as they do on some file systems.
    """
    taken: set[str] = set()
    stems = []
    for path in paths:
        stem, number = path.stem, 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if is_folder(path):
        try:
            images = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be listed ({error.strerror}); give a folder you can read"
            ) from error
        if not images:
            raise InputError(
                f"{path}: is a folder without images, expected {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        return images
    if exists(path) or not glob.has_magic(text):
        return [path]
    # Path.glob takes no absolute pattern.
    matches = sorted(Path(match) for match in glob.glob(text, recursive=True))  # noqa: PTH207
    files = [match for match in matches if is_file(match)]
    if not files:
        raise InputError(f"{text}: matches no file; check the pattern")
    return files
