"""Files whose rows lie deeper: arrays under a key, SQuAD, Arrow, folders of save_to_disk; and samples of a source."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pytest
from snaketune.config import schema_nodes
from snaketune.data import sources
from snaketune.data.readers import dispatch
from snaketune.errors import DataError
from snaketune.files import read_jsonl
from unit.data.data_steps import settings, source, validated

ROWS = [{"prompt": f'Frage {n}, [ja] {{oder}} "nein"?', "response": "a" * n + "]"} for n in range(1, 5)]


def read(path: Path, **keys: object) -> list[dict]:
    one = source(path=str(path), **keys)
    return [
        row.parsed for file in sources.data_files(one, "s") for row in dispatch.rows(file.path, file.file_format, one)
    ]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("first", [True, False])
def test_an_array_under_a_key_is_found_wherever_it_stands(tmp_path: Path, indent: int | None, first: bool) -> None:
    around = {"version": "1.1", "meta": {"tags": ["x"], "data": 3}, "notes": ["a"]}
    whole = {"data": ROWS, **around} if first else {**around, "data": ROWS}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(whole, indent=indent), encoding="utf-8")
    assert read(path) == ROWS
    assert read(path, rows_key="data") == ROWS


def test_an_array_under_a_key_is_read_from_a_compressed_file_that_is_larger_than_a_block(tmp_path: Path) -> None:
    many = [{"prompt": f"q{n}", "response": "b" * 500} for n in range(5000)]
    path = tmp_path / "rows.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"notes": "n" * 1_500_000, "rows": many}).encode()))
    assert read(path, rows_key="rows") == many


def test_two_lists_in_a_file_need_a_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"train": ROWS[:3], "test": ROWS[3:]}))
    with pytest.raises(DataError, match="train, test"):
        read(path)
    assert read(path, rows_key="test") == ROWS[3:]
    with pytest.raises(DataError, match='no list under "valid"'):
        read(path, rows_key="valid")


def test_objects_on_lines_of_a_json_file_stay_rows_even_with_lists_in_them(tmp_path: Path) -> None:
    chats = [{"messages": [{"role": "user", "content": "q"}]}, {"dialog": [{"a": 1}]}]
    path = tmp_path / "rows.json"
    path.write_text("\n".join(map(json.dumps, chats)))
    assert read(path) == chats
    path.write_text(json.dumps(chats[0]))
    assert read(path) == chats[:1]


SQUAD = {
    "version": "x",
    "data": [
        {
            "title": "Basel",
            "paragraphs": [
                {
                    "context": "Der Rhein fließt durch Basel.",
                    "qas": [
                        {
                            "id": "7",
                            "question": "Welcher Fluss?",
                            "answers": [{"text": "Der Rhein", "answer_start": 0}],
                        },
                        {"id": "8", "question": "Welcher Berg?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}


def test_each_question_of_squad_is_a_row_with_its_context_in_the_prompt(tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(SQUAD), encoding="utf-8")
    report = validated(tmp_path / "out", settings({"path": str(path), "format": "squad"}))
    assert (report["read"], report["kept"], report["reasons"]) == (2, 1, {"missing-field": 1})
    (record,) = read_jsonl(tmp_path / "out" / "records.jsonl")
    assert record["messages"][0]["content"] == "Der Rhein fließt durch Basel.\n\nWelcher Fluss?"
    assert record["messages"][1]["content"] == "Der Rhein"
    asked = settings({"path": str(path), "format": "squad", "template": "{title}: {question}"})
    validated(tmp_path / "own", asked)
    (record,) = read_jsonl(tmp_path / "own" / "records.jsonl")
    assert record["messages"][0]["content"] == "Basel: Welcher Fluss?"
    path.write_text(json.dumps({"data": ROWS}))
    with pytest.raises(DataError, match="not nested as SQuAD"):
        read(path, format="squad")


def write_stream(path: Path, rows: list[dict]) -> None:
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def save_to_disk(folder: Path, rows: list[dict]) -> None:
    """A folder as `save_to_disk` of datasets writes it."""
    folder.mkdir(parents=True)
    write_stream(folder / "data-00000-of-00002.arrow", rows[:2])
    write_stream(folder / "data-00001-of-00002.arrow", rows[2:])
    files = [{"filename": f"data-0000{n}-of-00002.arrow"} for n in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_split": "train"}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}, "description": "rows"}))


def test_arrow_is_read_as_a_stream_and_as_a_file(tmp_path: Path) -> None:
    write_stream(tmp_path / "rows.arrow", ROWS)
    assert read(tmp_path / "rows.arrow") == ROWS
    table = pyarrow.Table.from_pylist(ROWS)
    with (
        pyarrow.OSFile(str(tmp_path / "rows.feather"), "wb") as file,
        pyarrow.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)
    assert read(tmp_path / "rows.feather") == ROWS
    (tmp_path / "broken.arrow").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="Arrow file cannot be read"):
        read(tmp_path / "broken.arrow")


def test_a_folder_of_save_to_disk_is_read_and_its_descriptions_are_not(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "one", ROWS)
    assert read(tmp_path / "one") == ROWS


def test_of_a_saved_set_with_splits_one_is_read(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "set" / "train", ROWS[:3])
    save_to_disk(tmp_path / "set" / "test", ROWS[3:])
    (tmp_path / "set" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert read(tmp_path / "set") == ROWS[:3]
    assert read(tmp_path / "set", hub_split="test") == ROWS[3:]
    with pytest.raises(DataError, match="train, test"):
        read(tmp_path / "set", hub_split="valid")


def test_a_smaller_limit_takes_a_part_of_what_a_larger_one_does() -> None:
    few, many = sources.sample_rows(1000, 30, 1, 0), sources.sample_rows(1000, 300, 1, 0)
    assert len(few) == 30
    assert few < many
    assert sources.sample_rows(1000, 0.03, 1, 0) == few
    assert sources.sample_rows(1000, 30, 2, 0) != few
    assert sources.sample_rows(1000, 30, 1, 1) != few
    assert sources.sample_rows(20, 30, 1, 0) == set(range(20))
    assert len(sources.sample_rows(20, 0.001, 1, 0)) == 1


def test_a_limited_source_counts_only_what_it_reads_and_says_how_much_there_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"What is {n} squared?", "response": str(n * n)}) + "\n" for n in range(90))
    )
    report = validated(tmp_path / "out", settings({"path": str(path), "limit": 12}, near_duplicates=False))
    assert (report["read"], report["kept"]) == (12, 12)
    assert report["sources"][0]["available"] == 90
    lines = [record["line"] for record in read_jsonl(tmp_path / "out" / "records.jsonl")]
    assert lines == sorted(lines)
    assert lines != list(range(1, 13))


def test_a_format_without_a_reader_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(DataError, match="toml"):
        list(dispatch.rows(str(path), "toml"))


def test_every_format_of_the_schema_has_a_reader(tmp_path: Path) -> None:
    formats = schema_nodes.root().properties["data"].properties["sources"].items.properties["format"].enum
    assert "squad" in formats
    path = tmp_path / "rows"
    path.write_text("", encoding="utf-8")
    messages = []
    for name in set(formats) - {"auto"}:
        try:
            list(dispatch.rows(str(path), name, source(path=str(path), target_path=str(path))))
        except DataError as error:
            messages.append(str(error))
    assert not [message for message in messages if "no reader knows" in message]
