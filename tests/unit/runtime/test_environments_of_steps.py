"""The conda environment of a step has the library of the engine that the step computes with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from snaketune.runtime.code_digest import modules_of
from snaketune.runtime.engine import ENGINES

ROOT = Path(__file__).resolve().parents[3]
RULE = re.compile(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
ENVIRONMENT = re.compile(r'conda:\s+f?"\.\./envs/([\w{}]+)\.yaml"')
SCRIPT = re.compile(r'scripts\("(\w+)"\)')
WITHOUT_LIBRARY = ("__init__.py", "capabilities.py")  # imported without the engine's library


def steps() -> dict[str, tuple[str, str]]:
    """The environment and the script of each rule that has both."""
    texts = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules").glob("*.smk")))
    found = {name: (ENVIRONMENT.search(body), SCRIPT.search(body)) for name, body in RULE.findall(texts)}
    return {name: (env[1], script[1]) for name, (env, script) in found.items() if env and script}


@pytest.mark.parametrize("engine", ENGINES)
def test_environment_of_each_step_has_the_library_of_the_engine_it_computes_with(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNAKETUNE_ENGINE", engine)
    computing = {}
    for name, (environment, script) in steps().items():
        modules = [Path(module) for module in modules_of(ROOT / "scripts" / f"{script}.py")]
        parts = [one for one in modules if f"engines/{engine}/" in str(one) and one.name not in WITHOUT_LIBRARY]
        if parts:
            packages = (ROOT / "envs" / f"{environment.format(ENGINE=engine)}.yaml").read_text(encoding="utf-8")
            computing[name] = f"'{engine}==" in packages
    assert {"train_adapter", "quantize_base", "fuse_adapter", "generate_answers"} <= computing.keys()
    # a gate reads a record with the module that made it
    assert [name for name, has_it in computing.items() if not has_it and not name.startswith("pass_")] == []
