"""A code digest changes when the meaning of the code does, and only then."""

import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
from snaketune.runtime import code_digest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


@pytest.fixture
def library(tmp_path: Path) -> ModuleType:
    """The digest module as if it stood in a small library of its own."""
    root = tmp_path / "scripts" / "snaketune"
    (root / "room").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "room" / "__init__.py").write_text("")
    (root / "room" / "used.py").write_text('"""Doc."""\n\ndef f(x):\n    """Doc."""\n    return x + 1  # why\n')
    (root / "room" / "unused.py").write_text("y = 1\n")
    (root / "room" / "words.txt").write_text("a\n")
    (root / "late.py").write_text("RESOURCES = ('room/words.txt',)\n")
    (root.parent / "step.py").write_text(
        "from snaketune.room import used\n\ndef g():\n    from snaketune import late\n"
    )
    (root / "runtime").mkdir()
    shutil.copy(code_digest.__file__, root / "runtime" / "digest.py")
    spec = sys.modules["importlib.util"].spec_from_file_location("digest_copy", root / "runtime" / "digest.py")
    module = sys.modules["importlib.util"].module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def now(library: ModuleType) -> str:
    for function in (
        library._module_info,
        library._load_cache,
        library._own_digest,
        library._content_digest,
        library._imports,
        library._files,
    ):
        function.cache_clear()
    return library.code_digest(library.ROOT / "step.py")


def test_comments_docstrings_and_touching_change_nothing(library: ModuleType) -> None:
    before = now(library)
    used = library.LIBRARY / "room" / "used.py"
    used.write_text('"""Other words."""\ndef f(x):\n    # another reason\n    return (x + 1)\n')
    assert now(library) == before


def test_a_changed_function_changes_it(library: ModuleType) -> None:
    before = now(library)
    used = library.LIBRARY / "room" / "used.py"
    used.write_text(used.read_text().replace("+ 1", "+ 2"))
    assert now(library) != before


def test_a_module_that_is_not_imported_does_not_count(library: ModuleType) -> None:
    before = now(library)
    (library.LIBRARY / "room" / "unused.py").write_text("y = 2\n")
    assert now(library) == before


def test_an_import_inside_a_function_and_its_resources_count(library: ModuleType) -> None:
    before = now(library)
    (library.LIBRARY / "room" / "words.txt").write_text("b\n")
    assert now(library) != before


def test_every_rule_has_its_script_and_its_digest() -> None:
    scripts = sorted(SCRIPTS.glob("*.py"))
    assert scripts
    digests = {script.name: code_digest.code_digest(script) for script in scripts}
    assert len(set(digests.values())) == len(scripts)


def test_data_steps_do_not_depend_on_the_engines() -> None:
    for step in ("validate_rows", "split_rows", "check_leaks", "save_config", "select_experiment"):
        reached = code_digest.modules_of(SCRIPTS / f"{step}.py")
        assert not [name for name in reached if "engine" in name], step


def test_a_step_depends_on_the_parts_of_an_engine_that_it_asks_for() -> None:
    covered = code_digest.modules_of(SCRIPTS / "fuse_adapter.py")
    assert any(path.endswith("/export.py") for path in covered)
    assert not any(path.endswith(("/language_model.py", "/gguf_model.py", "/generation.py")) for path in covered)
    covered = code_digest.modules_of(SCRIPTS / "generate_answers.py")
    assert any(path.endswith("/language_model.py") for path in covered)
    assert any(path.endswith("/gguf_model.py") for path in covered)


def test_functions_that_find_an_engine_are_imported_by_name_everywhere() -> None:
    """The digest follows `from snaketune.engines import get_exporter`, and no other way to it."""
    for path in SCRIPTS.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "from snaketune import engines" not in text, path
        assert "import snaketune.engines\n" not in text, path
