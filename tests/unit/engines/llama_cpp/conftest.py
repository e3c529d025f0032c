"""A real model as a GGUF file, converted once."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
STORIES = ROOT / "../shared/models/stories260K"


@pytest.fixture(scope="session")
def stories():
    if not STORIES.is_dir():
        pytest.skip("needs ../shared/models/stories260K")
    return STORIES


@pytest.fixture(scope="session")
def stories_gguf(stories, tmp_path_factory):
    """Its f16 GGUF, as llama.cpp's converter makes it."""
    converter = ROOT / "vendor/llama.cpp/convert_hf_to_gguf.py"
    if not converter.is_file():
        pytest.skip("needs llama.cpp's converter, which `make setup` unpacks into vendor")
    path = tmp_path_factory.mktemp("gguf") / "stories-f16.gguf"
    command = [sys.executable, str(converter), str(stories), "--outtype", "f16", "--outfile", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path
