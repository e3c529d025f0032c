"""Every configuration that imports also passes the plan, on a small base and with rows of the layout that it names."""

from __future__ import annotations

from pathlib import Path

import families
import pytest
import yaml
from snaketune.config import schema
from snaketune.files import write_json
from snaketune.importers import command
from unit.importers.configurations import AXOLOTL, LLAMA_FACTORY, MLX_LM, REGISTRY, Case
from unit.importers.small_plans import plan_of, with_small_rows

CASES = [case for case in (*AXOLOTL, *LLAMA_FACTORY, *MLX_LM) if not case.refused]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: families.build(folder / name, name) for name in ("llama-bpe", "qwen2")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_imported_configuration_passes_the_plan(
    case: Case, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lf").mkdir()
    write_json(tmp_path / "lf" / "dataset_info.json", REGISTRY)
    (tmp_path / "theirs.yaml").write_text(
        yaml.safe_dump(case.keys | ({"dataset_dir": "lf"} if "stage" in case.keys else {}))
    )
    settings = schema.read(command.run("theirs.yaml", "mine").configuration or "")
    base = bases["qwen2" if settings["model"]["chat_template"] == "chatml" else "llama-bpe"]
    found = plan_of(with_small_rows(settings, base), base)
    (planned,) = found.experiments.values()
    expected = settings["train"]["max_steps"]
    assert planned.steps == expected if expected else planned.steps >= 1
    assert planned.validations >= 2
    assert found.rows["train"] > 0
    assert found.rows["valid"] > 0
