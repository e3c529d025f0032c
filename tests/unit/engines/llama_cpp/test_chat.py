"""A question typed at the prompt is answered by the base and by the file, as the evaluation would."""

import json

import pytest
from snaketune.config import schema as configuration
from snaketune.errors import EvaluationError
from snaketune.evaluate import chat
from snaketune.files import write_json
from tiny_models import manifest_of


@pytest.fixture
def run(tmp_path, stories, stories_gguf):
    """A finished run whose tuned file is the base itself."""
    model = {"base": str(stories.resolve()), "chat_template": "alpaca"}
    given = {"run": "x", "model": model, "package": {"gguf": ["f16"]}, "evaluate": {"max_new_tokens": 8}}
    config = configuration.complete(given)
    folder = tmp_path / "results/x"
    write_json(folder / "config.json", config)
    write_json(folder / "model/base.json", manifest_of(stories))
    (folder / "model/x-f16.gguf").symlink_to(stories_gguf)
    return folder


def test_base_and_file_answer_each_question_until_an_empty_line(run, monkeypatch, capsys):
    typed = iter(["Tell me of a dog.", "And a cat?", ""])
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    chat.main(str(run))
    said = capsys.readouterr().out
    assert said.count("base:\n") == said.count("gguf-f16:\n") == 2
    base, file = (said.split(f"{name}:\n")[1].split("\n\n")[0] for name in ("base", "gguf-f16"))
    assert base.strip()
    assert base == file


def test_a_run_without_its_file_says_what_to_do(run):
    (run / "model/x-f16.gguf").unlink()
    with pytest.raises(EvaluationError, match="snakemake package"):
        chat.asker(run, json.loads((run / "config.json").read_text()))


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EvaluationError, match="there is no run"):
        chat.main(str(tmp_path / "nothing"))
