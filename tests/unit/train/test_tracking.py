"""Experiment trackers get the numbers of each step."""

import sys
import types

import pytest
import tiny_models
from snaketune.errors import ConfigError
from snaketune.train.tracking import open_tracker


@pytest.fixture
def folder(tmp_path):
    return tiny_models.TrainingFolder(tmp_path)


def test_tracker_that_is_not_installed_names_the_package_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match="pip install tensorboardX"):
        open_tracker(folder.folder, "id", folder.job(report_to="tensorboard"))


def test_tensorboard_and_wandb_get_the_same_numbers(folder, monkeypatch):
    seen = []
    writer = types.SimpleNamespace(add_scalar=lambda *one: seen.append(one), close=lambda: seen.append("closed"))
    board = types.SimpleNamespace(SummaryWriter=lambda folder: seen.append(folder) or writer)
    run = types.SimpleNamespace(log=lambda numbers, step: seen.append((numbers, step)), finish=lambda: None)
    wandb = types.SimpleNamespace(init=lambda **options: seen.append((options["id"], options["config"]["seed"])) or run)
    monkeypatch.setitem(sys.modules, "tensorboardX", board)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for name in ("tensorboard", "wandb", None):
        tracker = open_tracker(folder.folder, "abc", folder.job(report_to=name, seed=5))
        tracker.log(3, {"loss": 1.5})
        tracker.close()
    logs = str(folder.folder / "tensorboard")
    assert seen == [logs, ("loss", 1.5, 3), "closed", ("abc", 5), ({"loss": 1.5}, 3)]
