"""The routes of the local page, and what all of them share: the project, its processes, and who watches which run."""

from __future__ import annotations

from dataclasses import dataclass

from snaketune.ui.live import Watchers
from snaketune.ui.processes import Processes
from snaketune.ui.project import Project
from snaketune.ui.run_list import RunList


@dataclass(frozen=True)
class Context:
    """The parts of one server."""

    project: Project
    processes: Processes
    watchers: Watchers
    runs: RunList

    @classmethod
    def of(cls, project: Project) -> Context:
        processes = Processes(project)
        return cls(project, processes, Watchers(project, processes), RunList(project))
