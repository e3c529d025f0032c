"""Source archives of other tools as their makers published them: fetched with pip, checked, kept for later runs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

KEPT = Path(__file__).resolve().parents[2] / ".trainers" / "sources"
"""Not under version control; other people's files are read here and never copied into the project."""


@dataclass(frozen=True)
class Archive:
    """A source archive by the name of its package, its version and its SHA-256."""

    package: str
    version: str
    sha256: str

    def folder(self) -> Path:
        """Its files; skips the test where no registry can be reached, fails where the archive is another one."""
        kept = KEPT / f"{self.package}-{self.version}"
        if not kept.is_dir():
            self._fetch(kept)
        return kept

    def _fetch(self, kept: Path) -> None:
        KEPT.mkdir(parents=True, exist_ok=True)
        asked = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(KEPT)]
        command = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            *asked,
            f"{self.package}=={self.version}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            pytest.skip(f"pip cannot fetch the sources of {self.package}: {done.stderr.strip()[-200:]}")
        archive = next(KEPT.glob(f"{self.package.replace('-', '_')}-{self.version}.tar.gz"))
        assert hashlib.sha256(archive.read_bytes()).hexdigest() == self.sha256
        with tarfile.open(archive) as files:
            files.extractall(KEPT / "unpacked", filter="data")
        (KEPT / "unpacked" / archive.name.removesuffix(".tar.gz")).rename(kept)
        archive.unlink()


AXOLOTL = Archive("axolotl", "0.19.0", "136d623f04c909c5149d7f5dbd4a0e215014ab4c3617cce9d64010b5b8ca609d")
LLAMA_FACTORY = Archive("llamafactory", "0.9.5", "1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f")
