"""From a pilot to its decision, with true trainings of the demo's model; weights are random but in the slow test."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from snaketune import files
from snaketune.config import schema as configuration
from snaketune.config.experiments import expand
from snaketune.config.sections import RunConfig, TrainConfig
from snaketune.contracts.plan import PilotDecision, Plan
from snaketune.contracts.train import TrainingJob, TrainingOutputs
from snaketune.demo import task
from snaketune.engines.mlx import pretraining, train
from snaketune.files import read_json, read_jsonl
from snaketune.package import gguf_conversion
from snaketune.pilot import decide, dry_run, evidence
from snaketune.pilot.forecast import DecisionSettings
from snaketune.plan import plan
from snaketune.runtime.machine import Machine
from snaketune.tokens.chat_template import Renderer
from snaketune.tokens.token_store import TokenStore, write_store
from tiny_models import manifest_of

ROOT = Path(__file__).resolve().parents[3]
MACHINE = Machine("a machine", "cpu", 10**10, 9 * 10**9, "90 % of the RAM that this process may have")
SHORT = {"batch_size": 8, "gradient_accumulation_steps": 1, "dropout": 0.0, "rank": 4, "gradient_checkpointing": False}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The demo's base with random weights."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.models import llama

    folder = tmp_path_factory.mktemp("base")
    task.write_tokenizer(folder, task.numbers(1)["train"], 1)
    shape = task.write_config(folder)
    mx.random.seed(0)
    weights = dict(tree_flatten(llama.Model(llama.ModelArgs.from_dict(shape)).parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder


class Pilot:
    """The files of a pilot in a folder, made from records of the two splits."""

    def __init__(self, folder: Path, base: Path, splits: dict[str, list[dict[str, Any]]], **keys: Any) -> None:
        self.folder, self.config = folder, configuration.complete({"run": "a", **keys})
        renderer = Renderer(base)
        (folder / "demo").mkdir(parents=True)
        self.stores = {split: folder / "demo" / f"{split}.safetensors" for split in splits}
        for split, records in splits.items():
            write_store(self.stores[split], [(renderer.record(record), 1.0) for record in records])
        self.rows = folder / "demo/valid.jsonl"
        files.write_jsonl(self.rows, splits["valid"])
        counts = {split: {"rows": len(records)} for split, records in splits.items()} | {"test": {"rows": 5}}
        (folder / "demo/tokens.json").write_text(json.dumps({"splits": counts}))
        self.model = folder / "demo.config.json"
        files.write_json(self.model, manifest_of(base))
        self.tried = folder / "pilot/dry_run.json"
        files.write_json(
            dry_run.timing(self.tried),
            {
                "converter_seconds": 4.0,
                "merged_per_second": 1e8,
                "quantized_per_second": {},
                "calibrated_per_second": {},
                "gguf": {},
            },
        )

    def job(self, folder: Path) -> TrainingJob:
        return TrainingJob(
            train_tokens=str(self.stores["train"]),
            valid_tokens=str(self.stores["valid"]),
            model=str(self.model),
            config=msgspec.convert(self.config["train"], TrainConfig),
            dtype="auto",
            seed=self.config["seed"],
            outputs=TrainingOutputs.in_folder(folder),
        )

    @property
    def plan(self) -> Path:
        """plan.json, written when it is asked for."""
        config = msgspec.convert(self.config, RunConfig)
        experiments = list(expand(config).values())
        plan.run(
            plan.PlanSettings(
                experiments=experiments,
                max_length=config.data.max_length,
                max_lost=config.data.max_lost,
                seed=config.seed,
                gguf=config.package.gguf,
                mlx=config.package.mlx,
                adapter=config.package.adapter,
            ),
            models=[self.model],
            stores=[self.stores["train"]],
            tokens=[self.folder / "demo/tokens.json"],
            machine=MACHINE,
            plan=self.folder / "plan.json",
        )
        return self.folder / "plan.json"

    def decided(self) -> PilotDecision:
        config, out = msgspec.convert(self.config, RunConfig), self.folder / "pilot"
        experiments = list(expand(config).values())
        job = self.job(out)
        train_config = job.config.for_pilot(config.pilot.max_steps)
        train.train(msgspec.structs.replace(job, config=train_config, num_rows=config.pilot.rows))
        return decide.run(
            decide.PilotFiles(
                summary=out / "summary.json",
                metrics=out / "metrics.jsonl",
                adapter=out / "adapters.safetensors",
                model=self.model,
                train=self.stores["train"],
                valid=self.stores["valid"],
                rows=self.rows,
                plan=self.plan,
                dry_run=self.tried,
                subsets=[],
            ),
            self.settings(config, experiments[0].name),
            self.folder / "decision.json",
        )

    def settings(self, config: RunConfig, experiment: str) -> DecisionSettings:
        return DecisionSettings(
            experiment=experiment,
            pilot=config.pilot,
            rows_per_step=config.train.rows_per_step,
            model=config.model,
            seed=config.seed,
            max_rows=config.evaluate.max_rows,
            max_new_tokens=config.evaluate.max_new_tokens,
            max_hours=config.evaluate.max_hours,
            general_rows=config.evaluate.forgetting.rows,
            variants=["base", "adapter"],
            gguf=config.package.gguf,
            mlx=config.package.mlx,
            fidelity=config.package.fidelity,
            threads=config.threads,
        )


def translations(split: str, count: int | None = None) -> list[dict[str, Any]]:
    rows = [task.row(number) for number in task.numbers(1)[split][:count]]
    return [{"messages": [said("user", row["prompt"]), said("assistant", row["response"])]} for row in rows]


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def results(decision: PilotDecision) -> dict[str, str]:
    return {criterion.name: criterion.result for criterion in decision.criteria}


def test_a_learning_rate_of_zero_is_a_no_go_because_nothing_was_learnt(base, tmp_path):
    splits = {"train": translations("train", 64), "valid": translations("valid", 12)}
    found = Pilot(
        tmp_path, base, splits, train={**SHORT, "learning_rate": 0}, pilot={"rows": 32, "max_steps": 12, "sample": 2}
    ).decided()
    assert found.decision == "no-go"
    assert found.likely_cause.startswith("nothing was learnt")
    assert read_json(tmp_path / "decision.json", type=PilotDecision) == found
    assert found.forecast.hours_low < found.forecast.hours < found.forecast.hours_high
    assert found.forecast.disk_bytes > 0
    assert len(found.sample) == 2
    assert found.sample[0].prompt.startswith("translate to Hawaiian: ")


@pytest.fixture(scope="module", params=["lora", "full"])
def scored(request, base, tmp_path_factory):
    """A function: the evidence of one trained pilot, as of a model with so many weights; decides: whether a look does.

    After full training the base is a model of its own, and not the pilot without an adapter.
    """
    folder = tmp_path_factory.mktemp("scored")
    splits = {"train": translations("train", 64), "valid": translations("valid", 60)}
    short = {**SHORT, "learning_rate": 1e-2, "method": request.param}
    pilot = Pilot(folder, base, splits, train=short, pilot={"rows": 32, "max_steps": 12})
    decision = pilot.decided()
    assert (decision.rows, decision.rows_allowed, len(decision.sample)) == (60, 60, 16)
    config = msgspec.convert(pilot.config, RunConfig)
    settings = pilot.settings(config, "main")

    def collected(parameters, *, decides):
        store = TokenStore(pilot.stores["valid"])
        planned = read_json(pilot.plan, type=Plan)
        sized = replace(planned.experiments["main"], parameters=parameters)
        plan = replace(planned, experiments={"main": sized})
        return evidence.collect(pilot.model, folder / "pilot", store, settings, plan, lambda _: decides)

    return collected


def test_few_rows_of_a_large_model_are_scored_and_answered_where_they_decide(scored):
    whole, few = scored(1, decides=False), scored(10**12, decides=True)
    assert (len(whole.scores.base), whole.rows_allowed, len(whole.sample)) == (60, 60, 16)
    assert (len(few.scores.base), few.rows_allowed, len(few.sample)) == (24, 60, 8)
    assert set(few.scores.pilot.tolist()) < set(whole.scores.pilot.tolist())
    assert few.timing.row_tokens == pytest.approx(whole.timing.row_tokens, rel=0.2)


def test_rows_scored_in_two_looks_have_the_scores_that_they_have_in_one(scored):
    whole, joined = scored(1, decides=True), scored(10**12, decides=False)
    assert len(joined.scores.base) == joined.rows_allowed == 60
    for name in ("base", "pilot", "own"):
        one, other = (np.sort(getattr(each.scores, name)) for each in (whole, joined))
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert joined.scores.num_target_tokens.sum() == whole.scores.num_target_tokens.sum()
    assert len(joined.scores.other) == len(joined.scores.own) == 60


def test_plain_text_has_neither_binding_nor_a_sample_and_can_still_go(base, tmp_path):
    text = [{"text": left + right} for (left, right), _ in zip(task.facts([3, 5, 7], 1), range(60), strict=False)]
    splits = {"train": text[:40], "valid": text[40:]}
    found = Pilot(
        tmp_path,
        base,
        splits,
        train={**SHORT, "learning_rate": 1e-2, "warmup_steps": 2},
        pilot={"rows": 40, "max_steps": 30},
    ).decided()
    seen = results(found)
    assert seen["prompt dependence"] == "unknown"
    assert seen["score not worse than base"] == "unknown"
    assert seen["validation better than base"] == "pass"
    assert found.decision == "go", found.reasons


def test_a_dry_run_trains_saves_loads_and_converts_ten_rows(base, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        gguf_conversion,
        "export_adapter",
        lambda **files: (asked.append(files), Path(files["lora"]).write_bytes(b"GGUF")),
    )
    pilot = Pilot(tmp_path, base, {"train": translations("train", 30), "valid": translations("valid", 12)}, train=SHORT)
    report = tmp_path / "pilot/dry_run.json"
    files = dry_run.FilesToMake(["q8_0", "iq2_s"], "auto")
    found = dry_run.run(pilot.job(tmp_path / "pilot"), plan=pilot.plan, report=report, threads=1, files=files)
    assert [step.step for step in found.steps] == ["train", "save and load", "convert"]
    assert len(asked) == 1
    assert sorted(path.name for path in (tmp_path / "pilot").iterdir()) == ["dry_run", "dry_run.json"]
    timing = read_json(dry_run.timing(report))
    assert timing["converter_seconds"] < 10
    assert (list(timing["quantized_per_second"]), list(timing["calibrated_per_second"])) == (["q8_0"], ["iq2_s"])
    assert timing["gguf"] == {}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The demo's base as the workflow pre-trains it, from the project's results if it is there."""
    here = ROOT / "results/models/demo"
    if (here / "model.safetensors").is_file():
        return here
    folder = tmp_path_factory.mktemp("demo") / "demo"
    pretraining.build_demo(folder, seed=1)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "shuffled", "seed", "cause"),
    [
        ({"learning_rate": 0}, False, 1, "nothing was learnt"),
        ({"learning_rate": 10}, False, 1, "too high, and has broken the model"),
        ({}, True, 1, "do not belong to their questions"),
        *(({}, False, seed, None) for seed in range(1, 6)),
    ],
)
def test_hopeless_demos_are_refused_for_the_right_reason_and_the_honest_one_goes(
    tmp_path, built, changed, shuffled, seed, cause
):
    own = configuration.read(ROOT / "config.yaml")
    splits = {split: list(read_jsonl(ROOT / f"data/demo/{split}.jsonl")) for split in ("train", "valid")}
    for rows in splits.values() if shuffled else ():
        answers = [row["response"] for row in rows]
        random.Random(5).shuffle(answers)
        for row, answer in zip(rows, answers, strict=True):
            row["response"] = answer
    records = {
        split: [{"messages": [said("user", row["prompt"]), said("assistant", row["response"])]} for row in rows]
        for split, rows in splits.items()
    }
    found = Pilot(tmp_path, built, records, train=own["train"] | changed, pilot=own["pilot"], seed=seed).decided()
    assert found.decision == ("no-go" if cause else "go"), found.reasons
    assert (found.likely_cause or "").find(cause or "") >= 0
