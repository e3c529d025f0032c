"""One side of the comparison in a process of its own: `python one_side.py SIDE FILE FOLDER` prints one line of JSON.

snaketune does all of the data stage up to the split: verdicts, exact and near duplicates, clusters, split, reports.
pandas does what a plain script does: read, drop exact duplicates, shuffle, cut in three, write.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))


def snaketune(source: Path, folder: Path) -> int:
    from snaketune.config import schema
    from snaketune.data import splits, validate

    data = schema.complete({"run": "benchmark", "data": {"sources": [{"path": str(source)}]}})["data"]
    records = folder / "records.jsonl"
    report = validate.run({"data": data, "seed": 1}, records, folder / "rejected.jsonl", folder / "report.json")
    files = [folder / f"{name}.jsonl" for name in splits.NAMES]
    splits.run({"split": data["split"], "seed": 1}, records, *files, folder / "split.json")
    return report["kept"]


def pandas(source: Path, folder: Path) -> int:
    import pandas

    rows = pandas.read_json(source, lines=True).drop_duplicates().sample(frac=1, random_state=1)
    first, second = int(0.8 * len(rows)), int(0.9 * len(rows))
    parts = {"train": rows[:first], "valid": rows[first:second], "test": rows[second:]}
    for name, part in parts.items():
        part.to_json(folder / f"{name}.jsonl", orient="records", lines=True, force_ascii=False)
    return len(rows)


if __name__ == "__main__":
    side, source, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    before = time.process_time()
    kept = {"snaketune": snaketune, "pandas": pandas}[side](source, folder)
    # ru_maxrss counts kilobytes on Linux and bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"kept": kept, "cpu_seconds": time.process_time() - before, "peak_bytes": peak}))
