"""Package indexes on loopback with wheels that stand for packages: what pip asks instead of the network."""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from loopback import Handler


def wheel(folder: Path, name: str, version: str, requires: Sequence[str] = (), kilobytes: int = 1) -> None:
    """Write a wheel that does nothing but stand for a package."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    contents = {
        f"{name.replace('-', '_')}/__init__.py": f"VERSION = {version!r}\n".encode(),
        f"{name.replace('-', '_')}/weights.bin": os.urandom(kilobytes * 1000),
        f"{stem}.dist-info/METADATA": metadata.encode(),
        f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')},{len(content)}\n"
        for path, content in contents.items()
    )
    contents[f"{stem}.dist-info/RECORD"] = f"{record}{stem}.dist-info/RECORD,,\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        for path, content in contents.items():
            archive.writestr(path, content)


class Index(Handler):
    """Serves folders of wheels as package indexes: /<index>/<package>/ lists what lies there."""

    def do_GET(self) -> None:
        self.server.told.append(self.path)  # type: ignore[attr-defined]
        path = Path(self.server.told[0]) / unquote(self.path).strip("/")  # type: ignore[attr-defined]
        if path.is_file():
            self.answer(200, path.read_bytes())
        elif path.is_dir():
            links = "".join(f'<a href="{file.name}">{file.name}</a>\n' for file in sorted(path.iterdir()))
            self.answer(200, f"<html><body>{links}</body></html>".encode(), {"Content-Type": "text/html"})
        else:
            self.answer(404)
