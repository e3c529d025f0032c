"""A training in a process of its own, to be killed: `python killed.py FOLDER NAME`."""

import sys
from pathlib import Path

import tiny_models

if __name__ == "__main__":
    folder, name = sys.argv[1:3]
    place = object.__new__(tiny_models.Workplace)
    place.folder = Path(folder)
    place.manifest = place.folder / "model.json"
    place.train_store, place.valid_store = place.folder / "train.safetensors", place.folder / "valid.safetensors"
    place.train(
        name,
        epochs=12,
        batch_size=4,
        gradient_accumulation_steps=2,
        dropout=0.1,
        eval_steps=3,
        early_stopping_patience=None,
    )
