"""The engine's package puts its BLAS in place before anything else loads MLX."""

import snaketune.engines.mlx  # noqa: F401
