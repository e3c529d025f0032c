"""The demo, from nothing to its report, as `make` runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from project_copy import ROOT, Project
from snaketune import files

pytestmark = pytest.mark.e2e


def scores(demo: Project, artefact: str) -> dict[str, float]:
    path = demo.folder / "results/demo/evaluation" / artefact / "scores.json"
    found = json.loads(path.read_text())
    assert found["rows"] >= 200
    return {name: metric["value"] for name, metric in found["metrics"].items()}


def test_the_base_cannot_do_the_task_and_the_tuned_model_can(demo: Project) -> None:
    assert scores(demo, "base")["exact_match"] <= 0.05
    assert scores(demo, "adapter")["exact_match"] >= 0.90


def test_the_deployed_file_answers_as_well_as_the_adapter(demo: Project) -> None:
    difference = scores(demo, "gguf-q8_0")["exact_match"] - scores(demo, "adapter")["exact_match"]
    assert abs(difference) <= 0.02


def test_the_deployed_file_serves_the_evaluations_answers_and_the_report_says_how_fast(demo: Project) -> None:
    served = json.loads((demo.folder / "results/demo/model/served.json").read_text())
    assert served["same_sequential"] == served["prompts"] == 8
    assert served["same_concurrent"] == 8
    assert "tokens a second" in (demo.folder / "results/demo/report/index.html").read_text()


def test_the_report_names_the_tensor_types_really_used(demo: Project) -> None:
    fidelity = json.loads((demo.folder / "results/demo/model/fidelity.json").read_text())
    types = fidelity["variants"]["gguf-q4_k_m"]["tensor_types"]
    assert "q5_0" in types  # rows of 128 are no multiple of 256
    assert "q5_0" in (demo.folder / "results/demo/report/index.html").read_text().lower()


def test_the_report_draws_every_product_by_its_size(demo: Project) -> None:
    html = (demo.folder / "results/demo/report/index.html").read_text()
    picture = html[html.index('id="by-size"') :].partition("<svg")[2].partition("</svg>")[0]
    texts = set(re.findall(r">([^<>]+)</text>", picture))
    given = yaml.safe_load((demo.folder / "config.yaml").read_text())["package"]
    assert {*given["gguf"], *given["mlx"], "GGUF", "MLX"} <= texts
    assert any(text.endswith(" kB") for text in texts)


def test_the_held_out_rows_are_in_no_training_file(demo: Project) -> None:
    data = demo.folder / "results/demo/data"
    ids = {split: {row["id"] for row in files.read_jsonl(data / f"{split}.jsonl")} for split in ("train", "test")}
    assert len(ids["test"]) == 200
    assert not ids["test"] & ids["train"]


def test_the_adapter_loads_with_mlx_lms_own_command(demo: Project) -> None:
    base = demo.folder / "results/models/demo"
    adapter = demo.folder / "results/demo/train/main"
    said = subprocess.run(
        [
            *(sys.executable, "-m", "mlx_lm", "generate", "--model", str(base), "--adapter-path", str(adapter)),
            *("--prompt", "translate to Hawaiian: eight hundred fifty three", "--max-tokens", "30", "--temp", "0"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "haneli" in said.stdout


def test_running_again_has_nothing_to_do(demo: Project, tmp_path: Path) -> None:
    assert "Nothing to be done" in demo.twin(tmp_path / "project").snakemake().stdout


@pytest.mark.slow
def test_two_runs_give_the_same_bytes(demo: Project, tmp_path: Path) -> None:
    other = Project.copied(tmp_path / "again")
    assert other.snakemake().returncode == 0
    same = ["train/main/adapters.safetensors", "model/demo-q8_0.gguf", "evaluation/gguf-q8_0/scores.json"]
    same += ["evaluation/comparison.json", "data/report.json"]
    for name in same:
        one, two = (project.folder / "results/demo" / name for project in (demo, other))
        assert one.read_bytes() == two.read_bytes(), name


@pytest.mark.slow
def test_a_grid_of_two_by_three_trains_six_adapters_once_and_a_seventh_alone(demo: Project, tmp_path: Path) -> None:
    """300 updates each, for time; the demo's own 1000 change nothing about what is trained when."""
    project = demo.twin(tmp_path / "grid")
    given = yaml.safe_load((project.folder / "config.yaml").read_text())
    given["train"]["max_steps"] = 300
    given["grid"] = {"learning_rate": [1e-3, 2e-3, 4e-3], "rank": [8, 16]}
    project.write("grid.yaml", yaml.safe_dump(given))
    project.configuration = "grid.yaml"
    first = project.snakemake()
    assert first.returncode == 0, first.stdout
    assert first.stdout.count("] train_adapter ") == 6
    assert "Nothing to be done" in project.snakemake().stdout
    project.write("grid.yaml", yaml.safe_dump(given | {"experiments": {"seventh": {"rank": 4}}}))
    more = project.snakemake()
    assert more.returncode == 0, more.stdout
    assert more.stdout.count("] train_adapter ") == 1
    names = ["seventh", *(f"learning_rate-{rate}_rank-{rank}" for rank in (8, 16) for rate in (0.001, 0.002, 0.004))]
    html = (project.folder / "results/demo/report/index.html").read_text()
    for name in names:
        assert f">{name}<" in html


@pytest.mark.slow
def test_the_torch_engine_learns_the_task_as_well(tmp_path: Path) -> None:
    project = Project.copied(tmp_path / "torch")
    project.replace("config.yaml", "\nengine: auto\n", "\nengine: torch\n")
    project.replace("config.yaml", '\n  mlx: ["8bit", "4bit"]\n', "\n  mlx: []\n")  # MLX alone makes these
    done = project.snakemake(OMP_WAIT_POLICY="PASSIVE")
    assert done.returncode == 0, done.stdout
    for name in ("adapter", "gguf-q8_0"):
        assert scores(project, name)["exact_match"] >= 0.90


def test_nothing_of_the_training_path_imports_torch() -> None:
    code = (
        "from snaketune.runtime.step import block_torch; block_torch()\n"
        "import sys, snaketune.engines.mlx.train, snaketune.engines.mlx.language_model, snaketune.evaluate.predict\n"
        "assert not sys.modules.get('torch'), 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", check=True, timeout=120)
