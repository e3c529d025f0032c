"""A training in a process of its own, to be killed: `python killable_training.py FOLDER NAME`."""

import sys
from pathlib import Path

import tiny_models

if __name__ == "__main__":
    tiny_models.TrainingFolder.reopen(Path(sys.argv[1])).train(
        sys.argv[2],
        epochs=12,
        batch_size=4,
        gradient_accumulation_steps=2,
        dropout=0.1,
        eval_steps=3,
    )
