"""A bundle folder for `FakeEngines`: a manifest, a tokenizer that knows their colours, and no graphs."""

from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from sed_trt.bundle import TOKENIZER_FILE, file_record, write_manifest
from sed_trt.tests.fakes.engines import COLOURS, FIRST_COLOUR_TOKEN
from sed_trt.tests.fakes.manifest import fake_manifest

_START, _END, _UNKNOWN = ("<start>", 1), ("<end>", 2), ("<unknown>", 3)


def write_fake_bundle(folder: Path) -> Path:
    """Write the bundle into a new folder."""
    folder.mkdir()
    words = {name: FIRST_COLOUR_TOKEN + number for number, name in enumerate(COLOURS)}
    tokenizer = Tokenizer(WordLevel(dict([_START, _END, _UNKNOWN]) | words, unk_token=_UNKNOWN[0]))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{_START[0]} $A {_END[0]}", special_tokens=[_START, _END]
    )
    tokenizer.save(str(folder / TOKENIZER_FILE))
    manifest = fake_manifest()
    for stage in manifest.stages.values():
        (folder / stage.file).write_text("no graph")
    names = [TOKENIZER_FILE, *(stage.file for stage in manifest.stages.values())]
    write_manifest(folder, replace(manifest, files={name: file_record(folder / name) for name in names}))
    return folder
