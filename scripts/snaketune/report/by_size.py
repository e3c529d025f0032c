"""Quality against size over all products, GGUF and MLX, and which folder for MLX is better for its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from snaketune.config.products import GGUF, MLX
from snaketune.contracts.package import Fidelity
from snaketune.contracts.report import ProductFile, RunFindings
from snaketune.report.formatting import format_size

SAME = 0.005  # of the gain: what two products may differ by and still be as good
ALL = 0.9995  # of the gain: what rounds to all of it


class SizedProduct(msgspec.Struct, kw_only=True, frozen=True):
    """A product: its variant and size, the share of the adapter's gain that it keeps, whether its checks passed."""

    variant: str
    file: str
    bytes: int
    kept: float
    passed: bool

    @property
    def is_mlx(self) -> bool:
        return self.variant.startswith(MLX)

    def beats(self, other: SizedProduct) -> bool:
        """Whether this one is better for its size: no larger and better, or smaller and as good."""
        if self.bytes <= other.bytes and self.kept > other.kept + SAME:
            return True
        return self.bytes < other.bytes and self.kept >= other.kept - SAME


def kept_gains(fidelity: Fidelity | None) -> dict[str, float]:
    """Share of the adapter's gain in answer likelihood that each variant keeps."""
    variants = fidelity.variants if fidelity else {}
    return {name: variant.gain_retained for name, variant in variants.items() if variant.gain_retained is not None}


def by_size(files: Sequence[ProductFile], fidelity: Fidelity | None) -> list[SizedProduct]:
    """The products whose share of the gain is known, the largest first."""
    kept = kept_gains(fidelity)
    failed = {check.variant for check in (fidelity.checks if fidelity else []) if not check.passed}
    found = [
        SizedProduct(
            variant=file.variant,
            file=file.file,
            bytes=file.bytes,
            kept=kept[file.variant],
            passed=file.variant not in failed,
        )
        for file in files
        if file.variant in kept
    ]
    return sorted(found, key=lambda product: (-product.bytes, product.variant))


def better_for_its_size(products: Sequence[SizedProduct]) -> tuple[SizedProduct, SizedProduct] | None:
    """The folder for MLX that keeps most, of those that beat a GGUF and that none beats; and the GGUF."""
    ggufs = [product for product in products if product.variant.startswith(GGUF)]
    for product in sorted(products, key=lambda product: -product.kept):
        beaten = [gguf for gguf in ggufs if product.beats(gguf)]
        if product.is_mlx and product.passed and beaten and not any(other.beats(product) for other in products):
            return product, min(beaten, key=lambda gguf: (abs(gguf.bytes - product.bytes), gguf.variant))
    return None


def recommendation(found: RunFindings, titles: Mapping[str, str]) -> str | None:
    """A sentence on the folder for MLX that is better for its size than a GGUF, where there is one."""
    pair = better_for_its_size(by_size(found.model.files, found.fidelity))
    if pair is None:
        return None
    product, gguf = pair
    return (
        f"On a Mac, {titles.get(product.variant, product.variant)} ({format_size(product.bytes)}) is better for its "
        f"size: it keeps {_kept(product)} what tuning gained in the likelihood of the answers, "
        f"{titles.get(gguf.variant, gguf.variant)} ({format_size(gguf.bytes)}) keeps {_kept(gguf)} it."
    )


def _kept(product: SizedProduct) -> str:
    """`99.2 % of`; a rounding can also gain a little, and then all is kept."""
    return "all of" if product.kept >= ALL else f"{100 * product.kept:.1f} % of"
