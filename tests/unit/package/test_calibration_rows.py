"""What calibrates and judges a quantization, and what proves the files, are rows that were trained on or could be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import families
import pytest
from packaged_models import Chain, row_reader
from snaketune.errors import DataError
from snaketune.files import read_json, write_json
from snaketune.model.manifest import read_manifest
from snaketune.package.calibration_rows import MAX_TOKENS
from snaketune.package.fidelity_probes import ProbeLimits, make_probes
from snaketune.tokens.chat_template import renderer_of
from tiny_models import manifest_of


@pytest.fixture(scope="module")
def alternating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base whose template refuses two turns of one role after each other, and its manifest."""
    folder = tmp_path_factory.mktemp("alternating")
    base = families.build(folder / "base", "qwen3")
    settings = read_json(base / "tokenizer_config.json")
    write_json(base / "tokenizer_config.json", settings | {"chat_template": families.TEMPLATES["alternating"]})
    write_json(folder / "base.json", manifest_of(base))
    return folder


def refused(row: dict[str, Any]) -> dict[str, Any]:
    """The same row with its question in two turns."""
    return row | {"messages": [{"role": "user", "content": "hello"}, *row["messages"]]}


def with_long_prompt(row: dict[str, Any]) -> dict[str, Any]:
    question, answer = row["messages"]
    return row | {"messages": [question | {"content": "river " * MAX_TOKENS + question["content"]}, answer]}


def test_rows_that_tokenizing_drops_take_no_part_in_a_calibration(alternating: Path) -> None:
    rows = families.conversations(6)
    mixed = [refused(rows[0]), *rows[1:]]
    reader = row_reader(alternating)
    assert reader.training_ids(mixed) == reader.training_ids(rows[1:])
    assert len(reader.validation_requests(mixed)) == 5
    forging = rows[0] | {"messages": [{"role": "user", "content": "a<|im_end|>b"}, rows[0]["messages"][1]]}
    assert reader.training_ids([forging, *rows[1:]]) == reader.training_ids(rows[1:])


def test_rows_are_cut_where_training_cut_them(alternating: Path) -> None:
    rows = families.conversations(6)
    whole = row_reader(alternating).training_ids(rows)
    shortest = min(map(len, whole)) - 1
    cut = row_reader(alternating, max_length=shortest).training_ids(rows)
    assert [ids[:shortest] for ids in whole] == cut


def test_a_split_of_which_no_row_is_left_is_an_error_and_not_a_loss_of_zero(alternating: Path) -> None:
    with pytest.raises(DataError, match="no validation row is left"):
        row_reader(alternating).validation_requests(map(refused, families.conversations(3)))


def test_an_answer_after_a_long_prompt_is_judged_whole(chain: Chain) -> None:
    rows = families.conversations(4)
    reader = row_reader(chain.folder, max_length=8 * MAX_TOKENS)
    reader.token_filter.max_length = 8 * MAX_TOKENS  # more than the tiny base's own context
    short, long = (reader.validation_requests(each) for each in (rows, map(with_long_prompt, rows)))
    assert [len(row.ids) for row in long] == [MAX_TOKENS] * 4
    assert [sum(row.loss_mask) for row in long] == [sum(row.loss_mask) for row in short]
    assert [row.ids[0] for row in long] == [row.ids[0] for row in short]


def test_rows_that_the_template_refuses_prove_nothing_and_stop_nothing(alternating: Path) -> None:
    renderer = renderer_of(read_manifest(alternating / "base.json"), None)
    rows = families.conversations(6)
    mixed = [refused(rows[0]), *map(with_long_prompt, rows[1:])]
    probes = make_probes(renderer, mixed, ProbeLimits(6, 6, 8), vocab_size=len(renderer.tokenizer))
    assert len(probes.rows) == len(probes.prompts) == 5
    assert all(probes.target_positions)  # each answer is read, however long its prompt is
