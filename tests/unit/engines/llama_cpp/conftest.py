"""A real model as a GGUF file, converted once."""

import subprocess
import sys
from pathlib import Path

import pytest
from made_once import made_once
from tools import CONVERTER, LLAMA_CPP, STORIES, STORIES_MODEL


@pytest.fixture(scope="session")
def stories():
    STORIES_MODEL.require()
    return STORIES


@pytest.fixture(scope="session")
def stories_gguf(stories, tmp_path_factory):
    """Its f16 GGUF, as llama.cpp's converter makes it."""
    CONVERTER.require()
    converter = LLAMA_CPP / "convert_hf_to_gguf.py"

    def convert(folder: Path) -> None:
        target = ["--outtype", "f16", "--outfile", str(folder / "stories-f16.gguf")]
        subprocess.run([sys.executable, str(converter), str(stories), *target], check=True, capture_output=True)

    return made_once(tmp_path_factory, "stories-gguf", convert) / "stories-f16.gguf"
