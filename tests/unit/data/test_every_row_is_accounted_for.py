"""Whatever the input: read = kept + rejected + duplicates + near duplicates, and never a traceback."""

import gzip
import json
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from snaketune.errors import DataError
from snaketune.files import read_jsonl
from unit.data.data_steps import ask, settings, validated, write

KINDS = ("jsonl", "json", "csv", "tsv", "parquet", "pairs", "jsonl.gz", "jsonl.zst", "parquet.gz")
words = st.lists(st.sampled_from("the cat sat on a mat — ʻae \u200b \x1b 1".split(" ")), max_size=8).map(" ".join)
values = st.one_of(words, st.none(), st.integers(), st.lists(words, max_size=2), st.text(max_size=5))
turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool", "narrator"]), "content": values},
        optional={"tool_calls": st.one_of(values, st.just([{"function": {"name": "f", "arguments": "{}"}}]))},
    ),
    max_size=5,
)
rows = st.one_of(
    st.fixed_dictionaries({"prompt": words, "response": words}),
    st.dictionaries(st.sampled_from(["prompt", "response", "text", "instruction", "input", "output"]), values),
    st.fixed_dictionaries({"messages": st.one_of(turns, values)}),
    st.fixed_dictionaries({"conversations": turns, "tools": values}),
    values,
)


def accounted(content: bytes, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows.{kind}"
        path.write_bytes(content)
        data = settings({"path": str(path), "format": "pairs" if kind == "pairs" else "auto"})
        try:
            report = validated(Path(folder) / "out", data)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
            return
        records = list(read_jsonl(Path(folder) / "out/records.jsonl"))
        rejected = list(read_jsonl(Path(folder) / "out/rejected.jsonl"))
        counted = report["kept"] + report["rejected"] + report["duplicates"] + report["near_duplicates"]
        assert report["read"] == counted
        assert len(records) == report["kept"]
        assert len({record["id"] for record in records}) == len(records)
        assert len(rejected) == report["rejected"] == sum(report["reasons"].values())


@pytest.mark.parametrize("kind", KINDS)
@given(content=st.binary(max_size=300))
@example(content=b"\x80\n\x00")
@hypothesis_settings(max_examples=25, deadline=None)
def test_arbitrary_bytes_end_in_counts_or_in_one_clear_message(kind: str, content: bytes) -> None:
    accounted(content, kind)


@pytest.mark.parametrize("kind", ["jsonl", "json"])
@given(found=st.lists(rows, max_size=12), broken=st.binary(max_size=20), place=st.integers(0, 400))
@hypothesis_settings(max_examples=80, deadline=None)
def test_rows_of_every_kind_with_damage_among_them_are_accounted_for(
    kind: str, found: list, broken: bytes, place: int
) -> None:
    text = json.dumps(found) if kind == "json" else "".join(json.dumps(row) + "\n" for row in found)
    content = text.encode()
    place = min(place, len(content))
    accounted(content[:place] + broken + content[place:], kind)


@given(found=st.lists(st.lists(st.text(max_size=8), max_size=4), max_size=8), separator=st.sampled_from(",;\t"))
@hypothesis_settings(max_examples=60, deadline=None)
def test_tables_with_stray_quotes_and_commas_are_accounted_for(found: list[list[str]], separator: str) -> None:
    header = separator.join(["prompt", "response"])
    lines = [header, *(separator.join(cells) for cells in found)]
    accounted("\n".join(lines).encode(), "csv")


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("zst", zstandard.ZstdCompressor().compress)])
def test_a_compressed_file_that_is_cut_off_is_refused_and_a_whole_one_read(ending, pack, tmp_path) -> None:
    whole = tmp_path / "rows.jsonl"
    write(whole, *(ask(f"question {i} of this file", f"answer {i * i}") for i in range(200)))
    packed = pack(whole.read_bytes())
    path = tmp_path / f"rows.jsonl.{ending}"
    path.write_bytes(packed)
    assert validated(tmp_path / "out", settings({"path": str(path)}))["kept"] == 200
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"damaged or cut off"):
        validated(tmp_path / "out", settings({"path": str(path)}))


@pytest.mark.parametrize("depth", [50, 400, 900, 990, 3000])
def test_brackets_of_any_depth_in_a_tool_call_cost_one_row_at_most(depth: int, tmp_path: Path) -> None:
    deep = '{"function": {"name": "f", "arguments": {"a": ' + "[" * depth + "]" * depth + "}}}"
    turns = f'[{{"role": "user", "content": "q"}}, {{"role": "assistant", "tool_calls": [{deep}]}}]'
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"messages": {turns}}}\n{{"prompt": "q", "response": "a"}}\n')
    report = validated(tmp_path / "out", settings({"path": str(path)}))
    assert (report["kept"], report["rejected"]) == ((2, 0) if depth <= 60 else (1, 1))
