"""The logger plugin fulfills Snakemake's interface, and shows of Snakemake's records what a person needs."""

import logging
import re
from pathlib import Path

import pytest
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry
from snakemake_interface_logger_plugins.tests import TestLogHandlerBase
from snakemake_logger_plugin_snaketune import LogHandler, LogHandlerSettings
from snaketune.display.board import STAGE_OF

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin names itself to the steps in the environment; other tests must not inherit that."""
    monkeypatch.setenv("SNAKETUNE_DISPLAY", "")
    monkeypatch.setattr(logging, "raiseExceptions", True)


class TestInterface(TestLogHandlerBase):
    """The tests that the interface itself has for plugins."""

    __test__ = True

    def get_log_handler_cls(self) -> type[LogHandler]:
        return LogHandler

    def get_log_handler_settings(self) -> LogHandlerSettings:
        return LogHandlerSettings()


def test_snakemake_finds_the_plugin_by_the_name_in_the_profile() -> None:
    assert LoggerPluginRegistry().is_installed("snaketune")
    assert re.search(r"^logger: snaketune$", (ROOT / "profiles/default/profile.yaml").read_text(), re.MULTILINE)


def test_every_step_belongs_to_a_stage() -> None:
    steps = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert steps - STAGE_OF.keys() == set()
    assert STAGE_OF.keys() - steps == set()
