"""Only a step that says so keeps torch out of its process."""

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


def output_of(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_chat_template_neither_imports_nor_forbids_torch() -> None:
    assert output_of("import sys, snaketune.tokens.chat_template; print('torch' in sys.modules)") == "False"


def test_blocked_torch_is_not_imported_by_a_tokenizer() -> None:
    code = "import sys; from snaketune.runtime.step import block_torch; block_torch(); import transformers; "
    assert output_of(code + "print(sys.modules['torch'])") == "None"
