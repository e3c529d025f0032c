"""Sources: which files a configuration names, how each is read, and the message where that cannot be."""

import csv as csv_module
import datetime
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from snaketune.data import sources
from snaketune.data.readers import table_rows
from snaketune.errors import ConfigError, DataError
from snaketune.files import read_jsonl
from unit.data.data_steps import ask, settings, validated, write
from unit.data.data_steps import source as source_of

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
    assert sources.files([source_of(path=folder)]) == [f"{folder}/a/z.jsonl.gz", f"{folder}/b.jsonl"]
    assert sources.files([source_of(path=f"{folder}/*.jsonl"), source_of(path=folder)]) == [
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
        sources.files([source_of(path=source["path"].format(tmp_path))])
    assert raised.value.where == "data.sources[0].path"
    assert all(word in str(raised.value) for word in words)


def test_a_dangling_link_is_named_with_its_target_and_never_offered_as_its_own_correction(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").symlink_to(tmp_path / "unmounted/rows.jsonl")
    for name, words in (
        ("rows.jsonl", "is a link to .*unmounted/rows.jsonl, which is not there"),
        ("rowz.jsonl", "no f"),
    ):
        with pytest.raises(DataError, match=words) as raised:
            sources.files([source_of(path=str(tmp_path / name))])
        assert "did you mean" not in str(raised.value)


def test_a_path_below_the_home_folder_may_be_written_with_a_tilde(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "en.txt").write_text("one\n")
    (tmp_path / "haw.txt").write_text("kahi\n")
    source = {"path": "~/en.txt", "target_path": "~/haw.txt", "format": "parallel"}
    assert sources.files([source_of(**source)]) == [str(tmp_path / "en.txt"), str(tmp_path / "haw.txt")]
    assert read(tmp_path, source) == [("one", "kahi")]


def test_a_source_is_a_path_or_a_hub_data_set_and_parallel_needs_a_target(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *ROWS)["path"]
    for source in (
        {},
        {"path": path, "hub": "a/b"},
        {"path": path, "format": "parallel"},
        {"path": path, "target_path": path},
    ):
        with pytest.raises(ConfigError):
            sources.files([source_of(**source)])


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
    heavy = "{'numpy', 'pandas', 'pyarrow', 'huggingface_hub'}"
    code = f"import sys; from snaketune.data import sources; print({heavy} & set(sys.modules))"
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


def workbook(path: Path, **sheets: list[list]) -> dict[str, str]:
    """Write an Excel workbook of these rows by sheet; returns it as a source."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return {"path": str(path)}


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_workbook_is_read_as_a_person_sees_it(packed: str, tmp_path: Path) -> None:
    rows = [
        ["Rezepte aus der Küche", None, None],
        [],
        [" Frage ", "Antwort", None],
        ["Wie viele Eier?", 3],
        ["Wie viel Mehl?", 0.25, None],
        [],
        ["Bis wann?", datetime.datetime(2026, 5, 1)],
        ["NA", "null"],
        ["Zwei\nZeilen?", True],
        ["Und wer?", None],
    ]
    source = workbook(tmp_path / "rows.xlsx", Rezepte=rows, Leer=[])
    if packed:
        (tmp_path / "rows.xlsx.gz").write_bytes(gzip.compress((tmp_path / "rows.xlsx").read_bytes()))
        source["path"] += packed
    found = read(tmp_path, source | {"fields": {"prompt": "Frage", "response": "Antwort"}})
    assert found == [
        ("Wie viele Eier?", "3"),
        ("Wie viel Mehl?", "0.25"),
        ("Bis wann?", "2026-05-01"),
        ("NA", "null"),
        ("Zwei\nZeilen?", "TRUE"),
    ]
    assert [record["line"] for record in read_jsonl(tmp_path / "out/records.jsonl")] == [4, 5, 7, 8, 9]
    assert [(row["line"], row["reason"]) for row in read_jsonl(tmp_path / "out/rejected.jsonl")] == [(10, "empty")]


def test_a_workbook_of_several_sheets_needs_the_name_of_one(tmp_path: Path) -> None:
    rows = [["prompt", "response"], ["a", "b"]]
    source = workbook(tmp_path / "rows.xlsx", zweite=rows, erste=[*rows, ["c", "d"]])
    for sheet in (None, "dritte"):
        with pytest.raises(DataError, match="zweite, erste"):
            read(tmp_path, source | {"sheet": sheet})
    assert read(tmp_path, source | {"sheet": "erste"}) == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize(
    ("name", "head", "words"),
    [
        ("rows.csv", b"PK\x03\x04\x14", "an Excel workbook.*end its name in .xlsx"),
        ("rows.jsonl", b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel workbook.*save it as .xlsx"),
        ("rows.csv", b"PAR1\x15\x04", "a Parquet file"),
        ("rows.xls", b"\xd0\xcf\x11\xe0", r"spreadsheets of this kind \(.xls\).*save it as .xlsx"),
        ("rows.xlsx", b"no workbook", "cannot be read"),
    ],
)
def test_a_file_that_is_no_text_is_told_what_it_is(name: str, head: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(head)
    with pytest.raises(DataError, match=words):
        read(tmp_path, {"path": str(tmp_path / name)})


def test_cells_of_a_text_table_stay_as_they_are_written(tmp_path: Path) -> None:
    cells = ["NA", "null", "nan", "007", "1e5", "True", "2026-05-01", " spaces ", "", "∞"]
    lines = ["prompt;response;", *(f"q{number};{cell};" for number, cell in enumerate(cells))]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    assert read(tmp_path, {"path": str(tmp_path / "rows.csv")}) == [
        (f"q{number}", cell) for number, cell in enumerate(cells) if cell
    ]


def test_a_table_that_excel_saved_as_unicode_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_bytes('prompt\tresponse\r\nMañana?\t"sí,\n2\u2028nein"\r\n'.encode("utf-16"))
    assert read(tmp_path, {"path": str(tmp_path / "rows.tsv")}) == [("Mañana?", "sí,\n2\u2028nein")]


@pytest.mark.parametrize(
    ("columns", "fields", "words"),
    [
        ("Thema;Frage;Antwort", {}, "{prompt: Frage, response: Antwort}"),
        ("Frage;Antwort", {"prompt": "frage", "response": "antwort"}, "{prompt: Frage, response: Antwort}"),
        ("Frage;Antwort", {"prompt": "Frage", "response": "Antwrt"}, "{prompt: Frage, response: Antwort}"),
        ("en: US;haw;id", {}, '{prompt: "en: US", response: haw}'),
        ("Absatz", {}, "{text: Absatz}"),
    ],
)
def test_columns_of_other_names_are_offered_as_the_mapping_to_write(
    columns: str, fields: dict, words: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(f"{columns}\n{';'.join('xyz'[: columns.count(';') + 1])}\n")
    with pytest.raises(DataError) as raised:
        read(tmp_path, {"path": str(tmp_path / "rows.csv"), "fields": fields})
    assert words in str(raised.value)


def test_rows_in_another_encoding_come_with_the_command_that_recodes_their_file(tmp_path: Path) -> None:
    (tmp_path / "my rows.csv").write_bytes("prompt,response\nwer?,für\nwas?,so\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"iconv -f WINDOWS-1252 -t UTF-8 '.*/my rows.csv' > '.*/my rows.utf8.csv'"):
        read(tmp_path, {"path": str(tmp_path / "my rows.csv")}, max_rejected=0.1)


@given(st.text(alphabet='",;\n\ra é\\', max_size=40), st.integers(1, 4))
def test_a_table_is_cut_into_the_rows_that_pythons_own_strict_parser_finds(body: str, chunk: int) -> None:
    text = f"p,q\n{body}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_rows, "CHUNK", chunk)
        rows = list(table_rows.table_rows(io.BytesIO(text.encode()), "rows.csv", "csv"))
    lines = text.split("\n")[1:]
    expected = {}
    number = 0
    while number < len(lines):
        reader = csv_module.reader((f"{line}\n" for line in lines[number:]), strict=True)
        try:
            cells = next(reader)
        except csv_module.Error:
            cells, count = None, 1
        else:
            count = reader.line_num
        if cells is None or any(cell.strip() for cell in cells):
            expected[number + 2] = cells
        number += count
    assert [row.line for row in rows] == list(expected)
    for row, cells in zip(rows, expected.values(), strict=True):
        if cells is not None and len(cells) <= 2:
            assert list(row.parsed.values()) == cells
        else:
            assert row.parsed.code == "unknown-format"
