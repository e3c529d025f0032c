"""`make new DATA=file`: the configuration of a file whose columns are guessed, printed for the person to correct."""

import json
from pathlib import Path

import pytest
from snaketune.config import schema
from snaketune.errors import DataError
from snaketune.importers import data_file
from unit.data.test_containers import SQUAD


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def source_of(name: str) -> dict:
    return schema.read(f"{name}.yaml")["data"]["sources"][0]


def test_the_guess_is_written_and_printed_with_a_row(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "fragen.csv").write_text(
        "Nr;Frage;Antwort\n1;Was fließt durch Basel?;Der Rhein.\n2;Und durch Bern?;Die Aare.\n"
    )
    assert data_file.main(["meins", "", "fragen.csv"]) == 0
    assert source_of("meins")["fields"] == {"prompt": "Frage", "response": "Antwort"}
    said = capsys.readouterr().out
    assert "- {path: fragen.csv, fields: {prompt: Frage, response: Antwort}}" in said
    assert "user: Was fließt durch Basel?" in said
    assert "assistant: Der Rhein." in said
    assert "--configfile meins.yaml" in said
    assert schema.complete(schema.read("meins.yaml"))["run"] == "meins"


def test_a_file_that_is_read_as_it_is_needs_no_guess(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rows.jsonl").write_text('{"question": "2 + 2?", "answer": "4"}\n')
    assert data_file.main(["mine", "llama-3.1-8b-mac-64gb", "rows.jsonl"]) == 0
    assert "fields" not in source_of("mine")
    assert "guessed" not in capsys.readouterr().out


def test_squad_is_recognized(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "squad.json").write_text(json.dumps(SQUAD))
    assert data_file.main(["mine", "", "squad.json"]) == 0
    assert source_of("mine")["format"] == "squad"
    assert "user: Der Rhein fließt durch Basel. Welcher Fluss?" in capsys.readouterr().out


def test_a_file_that_nothing_can_be_made_of_is_told_and_no_configuration_is_written(folder: Path) -> None:
    (folder / "numbers.csv").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(DataError, match="cannot be guessed: a, b"):
        data_file.look_at("numbers.csv")
    assert data_file.main(["mine", "", "numbers.csv"]) == 1
    assert not (folder / "mine.yaml").exists()
    assert data_file.main(["mine", "", "nowhere.csv"]) == 1


def test_without_a_file_a_preset_is_written_as_before(folder: Path) -> None:
    assert data_file.main(["mine", "gemma-2-2b-mac-16gb", ""]) == 0
    assert data_file.main(["other", "no-such-preset", ""]) == 1
    assert (folder / "mine.yaml").exists()
