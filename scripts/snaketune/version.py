"""The version of snaketune, and the day of its release: `make version`."""

from __future__ import annotations

VERSION = "0.1.0"
RELEASED = "2026-11-29"
