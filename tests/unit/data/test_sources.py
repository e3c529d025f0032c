"""Sources: which files a configuration names, how each is read, and the message where that cannot be."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from snaketune.data import sources
from snaketune.errors import ConfigError, DataError
from snaketune.files import read_jsonl
from unit.data.data_steps import ask, settings, validated, write

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
ROWS = [ask(f"question {n}?", f'answer, with "marks" and\nlines {n}') for n in range(5)]


def read(folder: Path, *given: dict, **data: object) -> list[tuple[str, str]]:
    """Questions and answers of the kept rows."""
    validated(folder / "out", settings(*given, **data))
    records = read_jsonl(folder / "out/records.jsonl")
    return [tuple(message["content"] for message in record["messages"]) for record in records]


EXPECTED = [(row["prompt"], row["response"]) for row in ROWS]


def parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def csv(path: Path, separator: str = ",") -> None:
    cells = [["prompt", "response"], *([row["prompt"], row["response"]] for row in ROWS)]
    quoted = (separator.join('"' + cell.replace('"', '""') + '"' for cell in line) for line in cells)
    path.write_text("\r\n".join(quoted) + "\r\n", encoding="utf-8-sig")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("rows.jsonl", lambda path: write(path, *ROWS)),
        ("rows.ndjson", lambda path: write(path, *ROWS)),
        ("rows.json", lambda path: path.write_text(json.dumps(ROWS, indent=2))),
        ("array.jsonl", lambda path: path.write_text(json.dumps(ROWS))),
        ("lines.json", lambda path: write(path, *ROWS)),
        ("rows.csv", csv),
        ("semicolons.csv", lambda path: csv(path, ";")),
        ("rows.tsv", lambda path: csv(path, "\t")),
        ("rows.parquet", parquet),
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_every_container_gives_the_same_rows_compressed_or_not(name: str, make, packed: str, tmp_path: Path) -> None:
    path = tmp_path / name
    make(path)
    if packed:
        pack = gzip.compress if packed == ".gz" else zstandard.ZstdCompressor().compress
        (tmp_path / (name + packed)).write_bytes(pack(path.read_bytes()))
        path = tmp_path / (name + packed)
    assert read(tmp_path, {"path": str(path)}) == EXPECTED


def test_lines_are_counted_in_the_file_as_it_stands(tmp_path: Path) -> None:
    csv(tmp_path / "rows.csv")
    (tmp_path / "rows.json").write_text("[\n" + ",\n\n".join(json.dumps(row) for row in ROWS) + "\n]")
    (tmp_path / "gaps.jsonl").write_text("\n\n".join(json.dumps(row) for row in ROWS))
    for name, lines in (
        ("rows.csv", [2, 4, 6, 8, 10]),
        ("rows.json", [2, 4, 6, 8, 10]),
        ("gaps.jsonl", [1, 3, 5, 7, 9]),
    ):
        validated(tmp_path / "out", settings({"path": str(tmp_path / name)}))
        assert [record["line"] for record in read_jsonl(tmp_path / "out/records.jsonl")] == lines


def test_a_broken_element_of_an_array_does_not_take_the_others_along(tmp_path: Path) -> None:
    text = ", ".join(
        ['{"prompt": "a", "response": "b"}', '{"prompt": [1}', '{"prompt": tru}', '{"prompt": "c", "response": "d"}']
    )
    (tmp_path / "rows.json").write_text(f"[{text}]")
    assert read(tmp_path, {"path": str(tmp_path / "rows.json")}) == [("a", "b"), ("c", "d")]


def test_an_array_is_read_across_blocks_with_escapes_at_their_edges(tmp_path: Path, monkeypatch) -> None:
    rows = [ask("\\" * n + '"[{,', "}]," + '\\"' * n) for n in range(40)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    from snaketune.data.readers import dispatch

    monkeypatch.setattr(dispatch, "BLOCK", 7)
    assert len(read(tmp_path, {"path": str(tmp_path / "rows.json")}, near_duplicates=False)) == 40


def test_pairs_and_parallel_files_become_questions_and_answers(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("a\nb\n\nc\nd\n")
    (tmp_path / "en.txt").write_text("one\ntwo\n\n")
    (tmp_path / "haw.txt").write_text("kahi\nlua\n\n")
    assert read(tmp_path, {"path": str(tmp_path / "pairs.txt"), "format": "pairs"}) == [("a", "b"), ("c", "d")]
    source = {"path": str(tmp_path / "en.txt"), "target_path": str(tmp_path / "haw.txt"), "format": "parallel"}
    source["template"] = "Say in Hawaiian: {source}"
    assert read(tmp_path, source) == [("Say in Hawaiian: one", "kahi"), ("Say in Hawaiian: two", "lua")]
    (tmp_path / "haw.txt").write_text("kahi\n")
    with pytest.raises(DataError, match="more lines"):
        read(tmp_path, source)


def test_an_answer_line_left_blank_does_not_shift_the_pairs_after_it(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("a\n\nc\nd\n")
    assert read(tmp_path, {"path": str(tmp_path / "pairs.txt"), "format": "pairs"}) == [("c", "d")]


def test_a_quotation_mark_that_is_never_closed_costs_one_row(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('prompt,response\na,b\nc,"d\ne,f\ng,h\n')
    assert read(tmp_path, {"path": str(tmp_path / "rows.csv")}) == [("a", "b"), ("e", "f"), ("g", "h")]


def test_a_folder_a_glob_and_a_list_name_files_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.jsonl.gz", "a/notes.txt", ".hidden.jsonl"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(gzip.compress(b"{}") if name.endswith("gz") else b"{}\n")
    folder = str(tmp_path / "data")
    assert sources.files([{"path": folder}]) == [f"{folder}/a/z.jsonl.gz", f"{folder}/b.jsonl"]
    assert sources.files([{"path": f"{folder}/*.jsonl"}, {"path": folder}]) == [
        f"{folder}/b.jsonl",
        f"{folder}/a/z.jsonl.gz",
    ]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"path": "{}/rows.jsom"}, ["no file", "did you mean", "rows.jsonl"]),
        ({"path": "{}/nowhere/rows.jsonl"}, ["no file", "no folder"]),
        ({"path": "{}/*.csv"}, ["no file matches"]),
        ({"path": "{}/empty"}, ["no data file in this folder"]),
    ],
)
def test_a_missing_file_is_named_with_what_is_near(source: dict, words: list[str], tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as raised:
        sources.files([{"path": source["path"].format(tmp_path)}])
    assert raised.value.where == "data.sources[0].path"
    assert all(word in str(raised.value) for word in words)


def test_a_source_is_a_path_or_a_hub_data_set_and_parallel_needs_a_target(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *ROWS)["path"]
    for source in (
        {},
        {"path": path, "hub": "a/b"},
        {"path": path, "format": "parallel"},
        {"path": path, "target_path": path},
    ):
        with pytest.raises(ConfigError):
            sources.files([source])


def test_a_file_whose_name_says_nothing_needs_a_format(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="format"):
        read(tmp_path, {"path": str(tmp_path / "rows.txt")})


def test_too_many_rejected_rows_stop_the_run_with_their_reasons_and_leave_a_list(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", *ROWS, {"prompt": "x"}, {"text": ""}, 3)
    with pytest.raises(DataError) as raised:
        read(tmp_path, source, max_rejected=0.3)
    for word in ("3 of 8", "37.5%", "30.0%", "missing-field", "empty", "not-an-object", f"{source['path']}:6"):
        assert word in str(raised.value)
    assert len(list(read_jsonl(tmp_path / "out/rejected-at-stop.jsonl"))) == 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["rejected-at-stop.jsonl"]
    read(tmp_path, source, max_rejected=0.4)
    assert not (tmp_path / "out/rejected-at-stop.jsonl").exists()


def test_looking_for_files_imports_nothing_heavy() -> None:
    code = "import sys; from snaketune.data import sources; print({'numpy', 'msgspec', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_same_sources_give_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    more = [ask(f"question {n % 7}?", f"answer {n * n} to that one") for n in range(50)]
    long = [ask("why?", " ".join(f"word{n}" for n in range(90)) + f" end{n % 9}") for n in range(20)]
    write(tmp_path / "rows.jsonl", *ROWS, *ROWS, {"prompt": 1}, *more, *long)
    write(tmp_path / "test.jsonl", *ROWS, *more[:9])
    code = (
        "import sys; from pathlib import Path; from unit.data.data_steps import *; out = Path(sys.argv[1])\n"
        "data = settings({'path': 'rows.jsonl', 'split': 'train'}, {'path': 'test.jsonl', 'split': 'test'})\n"
        "validated(out, data); divided(out, data); assert checked(out, data)['pairs']"
    )
    path = f"{SCRIPTS}:{SCRIPTS.parent / 'tests'}"
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": path}
        subprocess.run([sys.executable, "-c", code, seed], cwd=tmp_path, env=environment, check=True)
    names = sorted(file.name for file in (tmp_path / "1").iterdir())
    assert len(names) == 8
    assert all((tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes() for name in names)
