"""The Modelfile: what Ollama's Go templates make of a conversation is what the model was trained with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import families
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaged_models import Chain
from snaketune import files
from snaketune.config.sections import OllamaConfig
from snaketune.package import gguf_conversion, modelfile
from snaketune.tokens.chat_template import Renderer
from tools import GO_LANGUAGE

# What Ollama does with the messages before its template sees them: system texts joined, neighbours of a role merged.
GO = """
package main

import ("encoding/json"; "os"; "strings"; "text/template")

type Message struct { Role, Content string }
type Case struct { Template string; Messages []Message }

func main() {
    var cases []Case
    if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil { panic(err) }
    var out []string
    for _, c := range cases {
        var system []string
        var merged []*Message
        for i := range c.Messages {
            m := c.Messages[i]
            if m.Role == "system" { system = append(system, m.Content) }
            if n := len(merged); n > 0 && merged[n-1].Role == m.Role {
                merged[n-1].Content += "\\n\\n" + m.Content
            } else { merged = append(merged, &m) }
        }
        t := template.Must(template.New("").Option("missingkey=zero").Parse(c.Template))
        var b strings.Builder
        values := map[string]any{"System": strings.Join(system, "\\n\\n"), "Messages": merged, "Response": ""}
        if err := t.Execute(&b, values); err != nil { panic(err) }
        out = append(out, b.String())
    }
    json.NewEncoder(os.Stdout).Encode(out)
}
"""


def go(folder: Path, cases: list[tuple[str, modelfile.Messages]]) -> list[str]:
    """What Go's text/template makes of each template and its messages."""
    GO_LANGUAGE.require()
    (folder / "main.go").write_text(GO, encoding="utf-8")
    given = json.dumps([{"Template": template, "Messages": messages} for template, messages in cases])
    said = subprocess.run(
        ["go", "run", str(folder / "main.go")], input=given, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


# every chat template of the tests, over a tokenizer that has its tokens
TEMPLATES = {
    "chatml": "smollm",
    "gemma": "gemma2",
    "gemma3": "gemma3",
    "llama2": "llama-sentencepiece",
    "llama3": "llama-bpe",
    "llama31": "llama-bpe",
    "mistral": "mistral",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "zephyr": "llama-sentencepiece",
}


def renderer(folder: Path, template: str, family: str, named: str | None = None) -> Renderer:
    folder.mkdir()
    families.FAMILIES[family].tokenizer(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if not named:
        path.write_text(json.dumps(config | {"chat_template": families.TEMPLATES[template]}), encoding="utf-8")
    return Renderer(folder, named)


def test_go_renders_every_template_as_jinja_does(tmp_path: Path) -> None:
    made = {name: renderer(tmp_path / name, name, family) for name, family in TEMPLATES.items()}
    made["alpaca"] = renderer(tmp_path / "alpaca", "alpaca", "llama-sentencepiece", named="alpaca")
    cases, expected = [], []
    for name, one in made.items():
        found = modelfile.infer_format(one.rendered_prompt)
        assert found is not None, name
        for messages in modelfile.probe_conversations():
            cases.append((found.to_go_template(), messages))
            expected.append(one.rendered_prompt(messages))
    assert go(tmp_path, cases) == expected


@given(
    st.lists(st.text(alphabet=st.sampled_from("ab {}\"'\\\n<|>%é🚀"), max_size=8), min_size=6, max_size=6),
    st.booleans(),
)
def test_any_format_of_constant_texts_is_found_again(parts: list[str], shows: bool) -> None:
    made = modelfile.ChatFormat(*parts, shows_empty_system=shows)
    found = modelfile.infer_format(made.render)
    assert found is not None
    assert all(found.render(probe) == made.render(probe) for probe in modelfile.probe_conversations())


def test_texts_that_go_would_take_for_its_own_are_quoted(tmp_path: Path) -> None:
    odd = modelfile.ChatFormat('{{ "\n', "a\\b}}", '"""', "{{", "}}", "\t{{", shows_empty_system=True)
    cases = [(odd.to_go_template(), messages) for messages in modelfile.probe_conversations()]
    assert go(tmp_path, cases) == [odd.render(messages) for messages in modelfile.probe_conversations()]
    assert '"""' not in odd.to_go_template()


@pytest.mark.parametrize(
    "odd",
    [
        lambda messages: f"{len(messages)} messages: " + "".join(m["content"] for m in messages),
        lambda messages: "".join(m["content"].upper() for m in messages),
        lambda messages: "".join(m["content"] for m in reversed(messages)),
        lambda messages: messages[-1]["content"],
    ],
)
def test_a_template_that_does_more_than_put_texts_around_has_no_format(odd: object) -> None:
    assert modelfile.infer_format(odd) is None  # type: ignore[arg-type]


def write(chain: Chain, target: Path, rows: list[dict[str, object]] | None = None, system: str | None = None) -> str:
    parameters = OllamaConfig(temperature=0.8, top_p=0.9, top_k=40, num_ctx=4096)
    files.write_jsonl(target / "train.jsonl", rows or families.conversations(3))
    modelfile.write_modelfile(
        chain.folder / "fused.json",
        chain.gguf("q8_0"),
        target / "train.jsonl",
        modelfile.ModelfileSettings(run="v1", name="mine", parameters=parameters, system=system),
        target / "Modelfile",
    )
    return (target / "Modelfile").read_text(encoding="utf-8")


def test_the_modelfile_has_what_ollama_needs(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = write(chain, tmp_path).splitlines()
    assert "FROM ./tiny-q8_0.gguf" in said
    assert 'PARAMETER stop "<|eot_id|>"' in said
    assert "PARAMETER temperature 0.8" in said
    assert "PARAMETER num_ctx 512" in said  # the model's own limit, not the 4096 of the settings
    assert not any(line.startswith("SYSTEM") for line in said)
    assert capsys.readouterr().err.splitlines()[-1] == f"ollama create mine:v1 -f {tmp_path / 'Modelfile'}"


def test_a_system_prompt_is_written_only_where_training_had_one(chain: Chain, tmp_path: Path) -> None:
    assert 'SYSTEM "Be brief."' in write(chain, tmp_path, system="Be brief.")
    assert 'SYSTEM """Say "oui".\nBe brief."""' in write(chain, tmp_path, system='Say "oui".\nBe brief.')


def test_a_system_prompt_of_the_rows_own_is_written_where_all_have_the_same(chain: Chain, tmp_path: Path) -> None:
    def with_system(*texts: str | None) -> list[dict[str, object]]:
        turns = [[{"role": "system", "content": text}] if text else [] for text in texts]
        rows = families.conversations(len(turns))
        return [{"messages": [*turn, *row["messages"]]} for turn, row in zip(turns, rows, strict=True)]

    assert 'SYSTEM "Be brief."' in write(chain, tmp_path, with_system("Be brief.", "Be brief."))
    assert "SYSTEM" not in write(chain, tmp_path, with_system("Be brief.", "Be long."))
    assert "SYSTEM" not in write(chain, tmp_path, with_system("Be brief.", None))
    assert 'SYSTEM "Be kind."' in write(chain, tmp_path, with_system("Be brief.", "Be kind."), system="Be kind.")
    assert "SYSTEM" not in write(chain, tmp_path, [{"text": "of no one"}])


def test_a_model_trained_with_tools_gets_no_template_that_would_leave_them_out(chain: Chain, tmp_path: Path) -> None:
    rows = families.conversations(3)
    assert 'TEMPLATE """' in write(chain, tmp_path, rows)
    said = write(chain, tmp_path, [*rows, rows[0] | {"tools": [{"type": "function"}]}])
    assert 'TEMPLATE """' not in said
    assert "trained with tools" in said


def test_the_begin_token_is_left_to_llama_cpp_where_it_adds_one(chain: Chain) -> None:
    one = Renderer(chain.folder / "fused")
    found = modelfile.format_of(one, gguf_conversion.read(chain.gguf("f16")))
    assert found is not None
    assert not found.prefix.startswith("<|begin_of_text|>")
    assert one.rendered_prompt([{"role": "user", "content": "a"}]).startswith("<|begin_of_text|>")
