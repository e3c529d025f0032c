"""Every malformed input that we know of, run as the validate step would run it."""

import csv

import msgspec
import pytest
from snaketune.config import schema
from snaketune.data import sources, validate
from snaketune.data.records import ValidationConfig
from snaketune.errors import DataError
from snaketune.files import read_json, read_jsonl
from tools import BAD_INPUTS, MALFORMED

EXPECTED = (BAD_INPUTS / "expected.tsv").read_text(encoding="utf-8").splitlines() if BAD_INPUTS.is_dir() else []
CASES = list(csv.DictReader(EXPECTED, delimiter="\t", quoting=csv.QUOTE_NONE))


@MALFORMED.needed
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_each_malformed_input_comes_out_as_expected(case, tmp_path):
    source = {"path": str(BAD_INPUTS / case["file"]), "format": case["format"]}
    data = {"sources": [source], "max_rejected": 1.0, "near_duplicates": False}
    complete = schema.complete({"run": "bad", "data": data})["data"]
    config = msgspec.convert({name: complete[name] for name in ValidationConfig.__struct_fields__}, ValidationConfig)
    records, rejected, report = (tmp_path / name for name in ("records.jsonl", "rejected.jsonl", "report.json"))
    sources.files(config.sources)
    if case["outcome"] == "error":
        with pytest.raises(DataError) as raised:
            validate.run(config, records, rejected, report)
        assert all(word.lower() in str(raised.value).lower() for word in case["say"].split())
        assert not records.exists()
        return
    validate.run(config, records, rejected, report)
    found = read_json(report)
    assert len(list(read_jsonl(records))) == found["kept"] == int(case["kept"])
    expected = {code: int(count) for code, count in (part.split("=") for part in case["reasons"].split(",") if part)}
    assert found["reasons"] == expected
    assert len(list(read_jsonl(rejected))) == found["rejected"] == sum(expected.values())
    assert found["read"] == found["kept"] + found["rejected"] + found["duplicates"] + found["near_duplicates"]
