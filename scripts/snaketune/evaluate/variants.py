"""What can be evaluated, and each of them loaded as something that scores and answers token ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snaketune.engines.sampling import Sampling
from snaketune.errors import EvaluationError
from snaketune.files import StrPath, read_json, sha256

Row = tuple[list[int], list[bool]]
Answer = tuple[int, list[int], bool]


@dataclass(frozen=True)
class Engine:
    """A loaded model: see `log_probabilities` and `answers` in engines.mlx and engines.llama_cpp."""

    log_probabilities: Callable[[Sequence[Row]], Iterator[float]]
    answers: Callable[[Sequence[list[int]], Sequence[int], Set[int], Sampling, Sequence[int]], Iterator[Answer]]


@dataclass(frozen=True)
class Artefact:
    """An artefact's name and the files that it is made of.

    name: base, prompted, adapter, pilot, fused, previous or gguf-<type>; model and fused: manifests of model folders;
    adapter: the adapter's weights, beside its adapter_config.json. `previous` is another run's fused model.
    """

    name: str
    model: StrPath
    adapter: StrPath | None = None
    fused: StrPath | None = None
    gguf: StrPath | None = None

    def __post_init__(self) -> None:
        wanted = {"adapter": "adapter", "pilot": "adapter", "fused": "fused", "previous": "fused"}.get(self.name)
        wanted = "gguf" if self.name.startswith("gguf") else wanted
        if wanted and getattr(self, wanted) is None:
            raise EvaluationError(f"the {self.name} artefact needs a file: {wanted}", where=f"evaluation/{self.name}")

    @property
    def folder(self) -> Path:
        """The model folder whose tokenizer, template and context it is read with.

        All artefacts of a run share those of its base, so that they see the same ids; another run's model has its own.
        """
        return _folder(self.fused if self.name == "previous" and self.fused else self.model)

    def fingerprint(self) -> list[Any]:
        """What tells this artefact from another of the same name; a GGUF by its size and time, not to read it twice."""
        found: list[Any] = [self.name, read_json(self.model).get("files")]
        if self.fused:
            found.append(read_json(self.fused).get("files"))
        if self.adapter:
            found += [sha256(self.adapter), sha256(Path(self.adapter).with_name("adapter_config.json"))]
        if self.gguf:
            facts = Path(self.gguf).stat()
            found.append([facts.st_size, facts.st_mtime_ns])
        return found

    def load(self, *, dtype: str, context: int, threads: int) -> Engine:
        """Load it once; context: the most tokens that it will have to hold."""
        if self.gguf:
            return _llama(self.gguf, context, threads)
        folder = _folder(self.fused) if self.fused else self.folder
        return _mlx(folder, dtype, Path(self.adapter).parent if self.adapter else None)


def _folder(manifest: StrPath) -> Path:
    return Path(read_json(manifest)["folder"]).expanduser()


def _mlx(folder: Path, dtype: str, adapter: Path | None) -> Engine:
    from snaketune.engines.mlx import generation, loading, loglikelihood

    model = loading.load(folder, dtype=dtype, adapter=adapter).model
    return Engine(
        lambda rows: loglikelihood.log_probabilities(model, rows),
        lambda prompts, limits, stops, sampling, seeds: generation.answers(
            model, prompts, limits, stops, sampling, seeds
        ),
    )


def _llama(gguf: StrPath, context: int, threads: int) -> Engine:
    from snaketune.engines.llama_cpp import generation, loading, loglikelihood

    llama = loading.open_gguf(Path(gguf), context=context, threads=threads)
    return Engine(
        lambda rows: loglikelihood.log_probabilities(llama, rows),
        lambda prompts, limits, stops, sampling, seeds: generation.answers(
            llama, prompts, limits, stops, sampling, seeds
        ),
    )
