"""The adapter without fusing, by the report's own commands: real servers and PEFT answer as the fused model."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from packaged_models import Chain
from snaketune import files
from snaketune.contracts.package import FusedManifest
from snaketune.contracts.report import RunFindings
from snaketune.engines import load_gguf, load_model
from snaketune.engines.decoding import Sampling
from snaketune.engines.interface import GenerationRequest, LanguageModel, LoadOptions
from snaketune.errors import PackageError
from snaketune.model.manifest import BaseConfig, write_manifest
from snaketune.package import gguf_conversion, serving
from snaketune.report.conclusion import adapter_commands
from snaketune.tokens.chat_template import Renderer

TIMEOUT = 200.0
NEW_TOKENS = 8
QUIET = os.environ | {"HF_HUB_OFFLINE": "1", "MLX_DISABLE_COMPILE": "1"}


def packaged_run(folder: Path, chain: Chain) -> Path:
    """The folder of a run with the chain's files in it, and the adapter's own files made."""
    run = folder / "results" / "mine"
    (run / "model").mkdir(parents=True)
    for name in ("base.json", "fused.json", "fused", "adapter"):
        (run / "model" / name).symlink_to(chain.folder / name)
    return run


@pytest.fixture(scope="module")
def run(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = packaged_run(tmp_path_factory.mktemp("served"), chain)
    gguf_conversion.export_adapter(
        model=folder / "model" / "base.json",
        adapter=folder / "model" / "adapter" / "adapters.safetensors",
        peft=folder / "model" / "peft",
        lora=folder / "model" / "mine-lora.gguf",
    )
    return folder


def commands(run: Path, chain: Chain, template: str | None = None, *, quantized: bool = False) -> dict[str, str]:
    """The report's commands for the adapter, by their titles."""
    model = run / "model"
    fused = {**files.read_json(model / "fused.json"), "folder": str(model / "fused"), "template": template}
    found = SimpleNamespace(
        run=run.name,
        folder=str(run),
        fidelity=None,
        model=SimpleNamespace(
            base_folder=str(chain.base),
            base_quantized=quantized,
            adapter=str(model / "adapter"),
            lora=str(model / "mine-lora.gguf"),
            fused=msgspec.convert(fused, FusedManifest),
        ),
    )
    return {one.title: one.command for one in adapter_commands(cast(RunFindings, found))}


def questions(chain: Chain) -> list[Any]:
    return [row["messages"][:1] for row in files.read_jsonl(chain.folder / "test.jsonl")][:6]


def answers(model: LanguageModel, chain: Chain) -> list[str]:
    """The likeliest answers of a model that this project loads."""
    renderer = Renderer(chain.folder / "fused")
    requests = [GenerationRequest(renderer.prompt_ids(question), NEW_TOKENS) for question in questions(chain)]
    found = {
        number: new for number, new, _ in model.generate(requests, stop_ids=renderer.stop_ids, sampling=Sampling())
    }
    return [renderer.decode(found[number]).strip() for number in range(len(requests))]


@contextlib.contextmanager
def served(command: Sequence[str]) -> Iterator[int]:
    """A server on a free port of the loopback, once it answers; ended after the block."""
    port = serving.free_port()
    with serving.server_process([*command, "--host", serving.HOST, "--port", str(port)]) as (process, output):
        until = time.monotonic() + TIMEOUT
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection(serving.HOST, port, timeout=5)
                connection.request("GET", "/v1/models")
                if connection.getresponse().status == 200:
                    break
            if process.poll() is not None or time.monotonic() > until:
                output.seek(0)
                raise AssertionError(output.read().decode()[-2000:])
            time.sleep(0.1)
        yield port


def served_answers(command: Sequence[str], chain: Chain) -> list[str]:
    with served(command) as port:
        return [serving.ask(port, one, NEW_TOKENS, TIMEOUT).text.strip() for one in questions(chain)]


def test_llama_cpps_server_answers_with_base_and_adapter_as_with_the_fused_file(run: Path, chain: Chain) -> None:
    make, serve = (shlex.split(line) for line in commands(run, chain)["With llama.cpp"].splitlines())
    assert make == ["make", "lora-base", "RUN=mine"]
    gguf_conversion.convert_lora_base(run)
    program, *options = serve
    assert program == "llama-server"
    own = {"-m": "--model", "--lora": "--lora_path"}
    arguments = [own.get(option, option) for option in options]
    server = [sys.executable, "-m", "llama_cpp.server", "--n_ctx", "256", *arguments]
    expected, alone = (
        answers(load_gguf(path, LoadOptions(context_length=256)), chain)
        for path in (chain.gguf("f16"), Path(arguments[arguments.index("--model") + 1]))
    )
    assert served_answers(server, chain) == expected
    assert alone != expected


def test_mlx_lms_server_answers_with_base_and_adapter_as_with_the_fused_folder(run: Path, chain: Chain) -> None:
    program, *options = shlex.split(commands(run, chain)["With MLX"])
    assert program == "mlx_lm.chat"
    expected, alone = (answers(load_model(path, LoadOptions()), chain) for path in (chain.folder / "fused", chain.base))
    server = [sys.executable, "-m", "mlx_lm", "server", *options]
    assert served_answers(server, chain) == expected
    assert alone != expected


ASK = """
import json, sys
for messages in json.load(sys.stdin):
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    new = model.generate(**ids, max_new_tokens={new}, do_sample=False)[0, ids["input_ids"].shape[1]:]
    print(json.dumps(tokenizer.decode(new, skip_special_tokens=True).strip()))
"""


def test_transformers_with_peft_answers_as_the_fused_folder(run: Path, chain: Chain) -> None:
    code = commands(run, chain)["With transformers"] + ASK.format(new=NEW_TOKENS)
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(questions(chain)), stdout=subprocess.PIPE, text=True, env=QUIET
    )
    assert done.returncode == 0
    expected = answers(load_model(chain.folder / "fused", LoadOptions()), chain)
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected


def test_a_template_of_the_configuration_reaches_every_program(run: Path, chain: Chain) -> None:
    found = commands(run, chain, template="other.jinja")
    program, arguments = found["With MLX"].split(" ", 1)
    assert program == "mlx_lm.server"
    shell = ["bash", "-c", f"printf '%s\\0' {arguments}"]
    said = subprocess.run(shell, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\0")
    fused = files.read_json(run / "model" / "fused" / "tokenizer_config.json")
    assert said[said.index("--chat-template") + 1] == fused["chat_template"].rstrip("\n")
    assert f"AutoTokenizer.from_pretrained({str(run / 'model' / 'fused')!r})" in found["With transformers"]


def test_a_run_that_is_not_packaged_has_no_base_to_write(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"fused\.json is missing"):
        gguf_conversion.convert_lora_base(tmp_path)


def test_over_a_quantized_base_no_command_is_advised_that_would_be_refused(run: Path, chain: Chain) -> None:
    assert set(commands(run, chain)) - set(commands(run, chain, quantized=True)) == {"With llama.cpp"}


def test_a_base_in_nf4_is_refused_too(chain: Chain, tmp_path: Path) -> None:
    run = packaged_run(tmp_path / "run", chain)
    nf4 = tmp_path / "nf4"
    shutil.copytree(chain.base, nf4)
    config = files.read_json(nf4 / "config.json")
    files.write_json(nf4 / "config.json", config | {"quantization_config": {"quant_method": "bitsandbytes"}})
    described = BaseConfig(base=str(nf4), revision="main")
    write_manifest(run / "model" / "base.json", described, str(nf4), patterns=("*.json", "*.safetensors"))
    with pytest.raises(PackageError, match="is quantized"):
        gguf_conversion.convert_lora_base(run)


def test_a_quantized_base_is_refused_before_it_is_converted(quantized_chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="is quantized"):
        gguf_conversion.convert_lora_base(packaged_run(tmp_path, quantized_chain))
