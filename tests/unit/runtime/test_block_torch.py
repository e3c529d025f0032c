"""How large libraries are imported: what keeps torch out of a process, and no search for garbage meanwhile."""

import gc
import importlib
import subprocess
import sys
import weakref
from pathlib import Path

import families
import pytest
from snaketune import engines
from snaketune.runtime.engine import torch_build
from snaketune.runtime.step import no_garbage_collected

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


def output_of(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_chat_template_neither_imports_nor_forbids_torch() -> None:
    assert output_of("import sys, snaketune.tokens.chat_template; print('torch' in sys.modules)") == "False"


def test_blocked_torch_is_not_imported_by_a_tokenizer() -> None:
    code = "import sys; from snaketune.runtime.step import block_torch; block_torch(); import transformers; "
    assert output_of(code + "print(sys.modules['torch'])") == "None"


def test_a_tokenizer_is_read_and_renders_without_torch_and_the_models_of_transformers_where_torch_is_let_in(
    tmp_path: Path,
) -> None:
    families.build(tmp_path, "llama-bpe", dtype="float32")
    code = (
        "import sys; from snaketune.tokens.chat_template import Renderer; "
        f"renderer = Renderer({str(tmp_path)!r}, None, 0); renderer.tokenizer('a b'); "
        "renderer.tokenizer.apply_chat_template([{'role': 'user', 'content': 'a'}]); "
        "print(sorted({'torch', 'transformers.models'} & set(sys.modules)))"
    )
    assert output_of(code) == "[]"


def test_a_torch_for_cpus_is_not_imported_to_name_its_device() -> None:
    if not (torch_build() or "").endswith("+cpu"):
        pytest.skip("torch is built for a card here")
    code = "import sys; from snaketune.engines import get_capabilities; "
    code += "print(get_capabilities('torch').describe_device().device, 'torch' in sys.modules)"
    assert output_of(code) == "cpu False"


def test_what_is_garbage_after_all_was_imported_is_collected_however_often_an_engine_is_asked() -> None:
    class Loop:
        """Holds itself, so only the collector frees it."""

        def __init__(self) -> None:
            self.itself = self

    engines.get_capabilities("torch")
    loop = Loop()
    freed = weakref.ref(loop)
    engines.get_capabilities("torch")
    del loop
    gc.collect()
    assert freed() is None


@pytest.mark.parametrize("was_enabled", [True, False])
def test_garbage_is_looked_for_after_imports_as_before_them_but_not_among_what_they_made(
    was_enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (gc.enable if was_enabled else gc.disable)()
    frozen = gc.get_freeze_count()
    try:
        with no_garbage_collected():
            assert not gc.isenabled()
            importlib.import_module("colorsys")
        assert gc.isenabled() is was_enabled
        assert gc.get_freeze_count() > frozen
    finally:
        gc.enable()
        gc.unfreeze()
