"""Every artefact answers the same rows from the same ids, once, whatever happens in between."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import families
import pytest
from snaketune.config import sections
from snaketune.config.experiments import expand
from snaketune.config.sections import FewShotConfig
from snaketune.engines.mlx import loading
from snaketune.errors import DataError, EvaluationError
from snaketune.evaluate import predict, requests, step_config, variants
from snaketune.evaluate.predict import PredictionInputs, PredictionOutputs
from snaketune.evaluate.variants import ModelVariant
from snaketune.files import read_jsonl, write_json, write_jsonl
from snaketune.tokens.chat_template import Renderer
from tiny_models import manifest_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return families.build(tmp_path_factory.mktemp("models") / "m", "qwen3")


@pytest.fixture(scope="module")
def manifest(model):
    path = model.with_name("m.json")
    write_json(path, manifest_of(model))
    return path


def conversation(number, turns=1, words=3):
    messages = []
    for turn in range(turns):
        said = " ".join(["river", "mountain", "island"][(number + turn + i) % 3] for i in range(words))
        messages += [{"role": "user", "content": f"what is {said}?"}, {"role": "assistant", "content": f"the {said}."}]
    return {"id": f"row-{number}", "messages": messages, "source": "s", "line": number}


def prediction_config(variant="base", **evaluate):
    config = sections.load({"run": "x", "evaluate": {"max_new_tokens": 6} | evaluate})
    return step_config.prediction_config(config, expand(config)["main"], variant)


def run(folder, manifest, rows, name="base", files=None, **evaluate):
    rows_path, here = folder / "rows.jsonl", folder / name
    write_jsonl(rows_path, rows)
    files = files or {}
    predict.run(
        ModelVariant(name, model=manifest),
        PredictionInputs(rows=rows_path, general=files.get("general_rows"), train=files.get("train")),
        PredictionOutputs(here / "predictions.jsonl", general=files.get("general"), prompts=files.get("prompts")),
        prediction_config(name, **evaluate),
    )
    return list(read_jsonl(here / "predictions.jsonl"))


def test_scores_and_answers_come_from_the_ids_of_training(tmp_path, manifest, model):
    rows = [conversation(i) for i in range(3)]
    lines = run(tmp_path, manifest, rows)
    renderer = Renderer(model)
    network = loading.load(model, dtype="float32").model
    for row, line in zip(rows, lines, strict=True):
        rendered = renderer.record(row)
        assert line["num_target_tokens"] == sum(rendered.loss_mask)
        assert line["logprob"] == pytest.approx(_direct(network, rendered.ids, rendered.loss_mask), rel=1e-4)
        assert line["prompt"] == row["messages"][0]["content"]
        assert line["reference"] == row["messages"][1]["content"]
        assert line["bytes"] == len(line["reference"].encode())
        greedy = _greedy(network, renderer.prompt_ids(row["messages"][:1]), 6, renderer.stop_ids)
        assert line["answer"] == renderer.decode(greedy)


def _direct(network, ids, trained):
    import mlx.core as mx

    logits = network(mx.array([ids]))[0]
    logs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return sum(logs[i - 1, ids[i]].item() for i in range(1, len(ids)) if trained[i])


def _greedy(network, prompt, limit, stop_ids):
    import mlx.core as mx

    ids = list(prompt)
    while len(ids) < len(prompt) + limit:
        token = int(mx.argmax(network(mx.array([ids]))[0, -1]).item())
        if token in stop_ids:
            break
        ids.append(token)
    return ids[len(prompt) :]


def test_the_same_inputs_give_the_same_bytes(tmp_path, manifest):
    rows = [conversation(i) for i in range(4)]
    run(tmp_path / "a", manifest, rows, generation={"temperature": 1.0})
    run(tmp_path / "b", manifest, rows, generation={"temperature": 1.0})
    one, other = (tmp_path / name / "base/predictions.jsonl" for name in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_a_killed_evaluation_continues_where_it_stopped(tmp_path, manifest, monkeypatch):
    rows = [conversation(i) for i in range(6)]
    expected = run(tmp_path / "whole", manifest, rows)
    loaded = variants.ModelVariant.load
    asked = []

    def dying(after):
        def load(self, **more):
            model = loaded(self, **more)

            def generate(asked_for, **options):
                asked.append(len(asked_for))
                for count, found in enumerate(model.generate(asked_for, **options)):
                    if count == after:
                        raise KeyboardInterrupt
                    yield found

            return SimpleNamespace(loglikelihood=model.loglikelihood, generate=generate)

        return load

    for after in (2, 3, None):
        monkeypatch.setattr(ModelVariant, "load", dying(after))
        if after is None:
            assert run(tmp_path, manifest, rows) == expected
        else:
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path, manifest, rows)
    assert asked == [6, 4, 1]
    assert not (tmp_path / "base/unfinished.jsonl").exists()


def test_what_was_done_with_other_settings_is_not_used(tmp_path, manifest, monkeypatch):
    rows = [conversation(i) for i in range(2)]
    monkeypatch.setattr(predict.ResumeLog, "finish", lambda _: None)
    long = run(tmp_path, manifest, rows, max_new_tokens=6)
    short = run(tmp_path, manifest, rows, max_new_tokens=2)
    assert [line["new_tokens"] for line in long] != [line["new_tokens"] for line in short]
    assert all(line["new_tokens"] <= 2 for line in short)


def test_at_most_max_rows_are_drawn_the_same_for_every_artefact():
    rows = [{"id": i} for i in range(100)]
    assert requests.sample_rows(rows, 10, 1) == requests.sample_rows(rows, 10, 1) != requests.sample_rows(rows, 10, 2)
    assert [row["id"] for row in requests.sample_rows(rows, 10, 1)] == sorted(
        row["id"] for row in requests.sample_rows(rows, 10, 1)
    )
    assert requests.sample_rows(rows, 100, 1) == rows


def test_a_conversation_is_asked_for_its_last_answer_or_for_each(tmp_path, manifest, model):
    rows = [conversation(0, turns=3)]
    (last,) = run(tmp_path / "last", manifest, rows)
    every = run(tmp_path / "all", manifest, rows, turns="all")
    assert last["reference"] == rows[0]["messages"][-1]["content"]
    assert [line["reference"] for line in every] == [m["content"] for m in rows[0]["messages"][1::2]]
    assert {line["id"] for line in every} == {"row-0#1", "row-0#3", "row-0"}
    assert [line.get("row", line["id"]) for line in every] == ["row-0"] * 3
    assert every[-1]["logprob"] == pytest.approx(last["logprob"])
    renderer = Renderer(model)
    for turn, line in zip((1, 3, 5), every, strict=True):
        alone = renderer.conversation(rows[0]["messages"][turn - 1 : turn + 1])
        assert line["num_target_tokens"] == sum(alone.loss_mask)


def test_text_rows_are_scored_and_not_answered(tmp_path, manifest):
    (line,) = run(tmp_path, manifest, [{"id": "t", "text": "the river and the mountain"}])
    assert "answer" not in line
    assert line["bytes"] == len("the river and the mountain")
    assert math.isfinite(line["logprob"])


def test_questions_and_rows_beyond_the_context_are_cut_and_said_to_be(tmp_path, manifest, capsys):
    rows = [conversation(0), conversation(1, words=250)]
    short, long = run(tmp_path, manifest, rows)
    assert "cut" not in short
    assert long["cut"] > 0
    assert long["new_tokens"] >= 1
    assert long["num_target_tokens"] > 512
    said = capsys.readouterr().err
    assert "1 of 2 questions were cut on the left to fit a context of 512 tokens" in said
    assert "1 of 2 rows exceed that context" in said


def test_a_general_set_and_prompts_are_answered_in_the_same_load(tmp_path, manifest, monkeypatch):
    loads = []
    loaded = ModelVariant.load
    monkeypatch.setattr(ModelVariant, "load", lambda self, **more: loads.append(1) or loaded(self, **more))
    general = tmp_path / "general.jsonl"
    general.write_text('{"question": "what is one?", "answer": "one", "category": "facts"}\n\n{"text": "a river"}\n')
    files = {"general_rows": general, "general": tmp_path / "g.jsonl", "prompts": tmp_path / "p.jsonl"}
    run(tmp_path, manifest, [conversation(0)], files=files, prompts=["what is two?"])
    facts, text = read_jsonl(tmp_path / "g.jsonl")
    assert (facts["id"], facts["category"], facts["reference"]) == ("general-1", "facts", "one")
    assert (text["id"], text["reference"]) == ("general-3", "a river")
    (prompt,) = read_jsonl(tmp_path / "p.jsonl")
    assert prompt["prompt"] == "what is two?"
    assert not {"reference", "logprob"} & prompt.keys()
    assert loads == [1]


def test_a_bad_row_of_the_general_set_is_named_by_its_line(tmp_path, manifest):
    general = tmp_path / "general.jsonl"
    general.write_text('{"text": "fine"}\n{"question": "and the answer?"}\n')
    with pytest.raises(DataError, match=r"general\.jsonl:2"):
        run(tmp_path, manifest, [conversation(0)], files={"general_rows": general, "general": tmp_path / "g"})


def test_the_prompted_base_reads_worked_examples_before_each_question(tmp_path, manifest, model):
    train = tmp_path / "train.jsonl"
    write_jsonl(train, [conversation(i) for i in range(5)] + [{"id": "t", "text": "no"}, conversation(9, turns=2)])
    rows = [conversation(7)]
    prompted = {"system": "Answer briefly.", "num_examples": 2}
    (line,) = run(tmp_path, manifest, rows, "prompted", files={"train": train}, few_shot=prompted)
    (plain,) = run(tmp_path, manifest, rows)
    assert line["prompt"] == plain["prompt"]
    assert line["num_target_tokens"] == plain["num_target_tokens"]
    assert line["logprob"] != plain["logprob"]
    lead = requests.few_shot_messages(FewShotConfig(**prompted), train, Renderer(model), 512, 1)
    assert [message["role"] for message in lead] == ["system", "user", "assistant", "user", "assistant"]


def test_the_prompted_base_takes_as_many_examples_as_half_the_context_holds(tmp_path, model, capsys):
    train = tmp_path / "train.jsonl"
    write_jsonl(train, [conversation(i, words=4) for i in range(9)])
    renderer = Renderer(model)
    lead = requests.few_shot_messages(FewShotConfig(system=None, num_examples=9), train, renderer, 300, 1)
    assert 0 < len(lead) < 18
    assert len(renderer.prompt_ids([*lead, {"role": "user", "content": "?"}])) <= 150
    assert f"gets {len(lead) // 2} of 9 examples: no more fit" in capsys.readouterr().err


def test_a_prompted_base_without_a_prompt_is_refused(tmp_path, manifest):
    with pytest.raises(EvaluationError, match="neither a system prompt nor an example"):
        run(tmp_path, manifest, [conversation(0)], "prompted", few_shot={"num_examples": 0})


def test_where_no_example_can_be_had_the_prompted_base_is_the_base_and_the_log_says_so(tmp_path, manifest, capsys):
    train = tmp_path / "train.jsonl"
    write_jsonl(train, [{"id": "t", "text": "no"}])
    rows = [{"id": "t", "text": "the river"}]
    assert run(tmp_path, manifest, rows, "prompted", files={"train": train}) == run(tmp_path, manifest, rows)
    assert "0 of 3 examples: no training row is a single exchange" in capsys.readouterr().err


def test_the_lead_replaces_a_rows_own_system_text_only_if_it_has_one():
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "q"}]
    example = [{"role": "user", "content": "e"}, {"role": "assistant", "content": "a"}]
    new = {"role": "system", "content": "new"}
    assert requests.with_prefix([], own) == own
    assert requests.with_prefix(example, own) == [own[0], *example, own[1]]
    assert requests.with_prefix([new, *example], own) == [new, *example, own[1]]


def test_damaged_weights_are_an_error_and_not_a_score(tmp_path, manifest, monkeypatch):
    damaged = SimpleNamespace(
        loglikelihood=lambda rows: iter([float("nan")] * len(rows)), generate=lambda *_, **__: iter([])
    )
    monkeypatch.setattr(ModelVariant, "load", lambda *_, **__: damaged)
    with pytest.raises(EvaluationError, match="not numbers"):
        run(tmp_path, manifest, [conversation(0)])


def test_a_row_that_the_template_refuses_is_not_asked_and_the_log_says_so(tmp_path, manifest, capsys):
    refusing = tmp_path / "alternating.jinja"
    refusing.write_text(families.TEMPLATES["alternating"], encoding="utf-8")
    refused = conversation(0)
    refused["messages"].insert(0, {"role": "user", "content": "hello"})
    rows_path = tmp_path / "rows.jsonl"
    config = sections.load({"run": "x", "model": {"chat_template": str(refusing)}, "evaluate": {"max_new_tokens": 6}})
    settings = step_config.prediction_config(config, expand(config)["main"], "base")

    def answered(rows):
        write_jsonl(rows_path, rows)
        outputs = PredictionOutputs(tmp_path / "base" / "predictions.jsonl")
        predict.run(ModelVariant("base", model=manifest), PredictionInputs(rows=rows_path), outputs, settings)
        return [one["id"] for one in read_jsonl(outputs.predictions)]

    assert answered([refused, conversation(1), conversation(2)]) == ["row-1", "row-2"]
    assert "1 of 3 rows are not asked: the chat template refuses them" in capsys.readouterr().err
    with pytest.raises(EvaluationError, match="no row to answer"):
        answered([refused])


def test_no_rows_is_an_error_with_its_file(tmp_path, manifest):
    with pytest.raises(EvaluationError, match=r"rows\.jsonl: there is no row to answer"):
        run(tmp_path, manifest, [])


def test_an_artefact_without_its_file_is_refused(manifest):
    for name in ("adapter", "pilot", "fused", "previous", "gguf-q8_0"):
        with pytest.raises(EvaluationError, match="needs a file"):
            ModelVariant(name, model=manifest)


def test_the_adapter_answers_as_trained_and_the_base_as_before(tmp_path, manifest, model):
    rows = [conversation(i) for i in range(3)]
    adapter = families.adapt(model, tmp_path / "adapter", rows=rows, updates=15)
    write_jsonl(tmp_path / "rows.jsonl", rows)
    for name, weights in (("base", None), ("adapter", adapter / "adapters.safetensors")):
        predict.run(
            ModelVariant(name, model=manifest, adapter=weights),
            PredictionInputs(rows=tmp_path / "rows.jsonl"),
            PredictionOutputs(tmp_path / name / "predictions.jsonl"),
            prediction_config(name),
        )
    total = {
        name: sum(line["logprob"] for line in read_jsonl(tmp_path / name / "predictions.jsonl"))
        for name in ("base", "adapter")
    }
    assert total["adapter"] > total["base"] + 3


def test_the_projects_own_general_set_can_be_read():
    found = requests.general_records(Path(__file__).resolve().parents[3] / "data/general.jsonl")
    assert len(found) >= 40
    assert len({json.dumps(row.get("messages", row.get("text"))) for row in found}) == len(found)


def test_rows_with_one_question_or_one_group_are_marked_as_one_cluster():
    def row(name, question, answer, **more):
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {"id": name, "messages": turns} | more

    rows = [
        row("z", "Wie lagere ich Kohl?", "kühl"),
        row("m", "Wie koche ich Reis?", "mit Wasser"),
        row("a", "wie lagere ich Kohl", "dunkel", group="gemuese"),
        row("k", "Wie schäle ich Knoblauch?", "mit dem Messer", group="gemuese"),
        {"id": "t", "text": "Ein Text."},
        {"id": "s", "text": "Noch ein Text."},
    ]
    assert requests.clusters(rows) == {"z": "z", "a": "z", "k": "z"}


def test_predictions_name_their_cluster_only_where_a_question_is_shared(tmp_path, manifest):
    once, again = conversation(0), conversation(0) | {"id": "row-again"}
    again["messages"] = [again["messages"][0], {"role": "assistant", "content": "another answer."}]
    lines = run(tmp_path, manifest, [once, conversation(1), again])
    assert [line.get("cluster") for line in lines] == ["row-0", None, "row-0"]
