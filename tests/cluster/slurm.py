"""A real Slurm of one node on loopback: munged, slurmctld and slurmd, started here and ended by their pids."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
from tools import MISSING

CONF = Path("/etc/slurm/slurm.conf")  # jobs find it nowhere else: the executor does not hand SLURM_CONF on
MARK = "# made by snaketune's tests"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scancel", "scontrol")
START = 30.0  # seconds for each daemon


def missing() -> str:
    """Why no Slurm can be started here, and what to do; nothing where one can."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        return f"{MISSING}{', '.join(absent)} (as root on Debian: make test-cluster)"
    if os.geteuid() != 0:
        return f"{MISSING}the right to start a Slurm (run the tests as root)"
    if CONF.exists() and not CONF.read_text(encoding="utf-8").startswith(MARK):
        return f"{CONF} is of a Slurm that is not ours"
    return ""


class Slurm:
    """The daemons, with their files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, socket.gethostname().split(".")[0]
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        CONF.parent.mkdir(exist_ok=True)
        CONF.write_text(self._configuration(), encoding="utf-8")
        Path("/run/munge").mkdir(mode=0o755, exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        self._run("runuser", "-u", "munge", "--", "munged", "--foreground")
        self._wait("munge", "-n")
        self._run("slurmctld", "-D")
        self._wait("squeue")
        self.start_node()
        self._wait("srun", "-n1", "true")

    def start_node(self) -> None:
        self._run("slurmd", "-D", "-N", self.host)

    def stop(self) -> None:
        subprocess.run(["scancel", "--full", "--user", "root"], check=False, timeout=20)
        for process in reversed(self._running):
            self._end(process)
        CONF.unlink(missing_ok=True)

    def kill_node(self) -> None:
        """Kill the newest slurmd as a power cut does, and tell the controller at once."""
        process = self._running.pop()
        for step in self._steps():
            for one in (step, *step.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        process.kill()
        process.wait()
        self.control("state=down", "reason=test")

    def control(self, *changes: str) -> None:
        subprocess.run(["scontrol", "update", f"nodename={self.host}", *changes], check=True, timeout=20)

    def jobs(self, comment: str) -> list[str]:
        """The ids of running jobs whose comment, which names their rule, has this in it."""
        said = subprocess.run(["squeue", "-h", "-t", "R", "-o", "%i %k"], stdout=subprocess.PIPE, text=True, check=True)
        return [line.split()[0] for line in said.stdout.splitlines() if comment in line]

    def ended(self, state: str) -> bool:
        """Whether some job ended in this state."""
        said = subprocess.run(["squeue", "-h", "-t", state, "-o", "%i"], stdout=subprocess.PIPE, text=True, check=True)
        return bool(said.stdout.split())

    @staticmethod
    def _steps() -> list[psutil.Process]:
        """The slurmstepd processes, which outlive slurmd."""
        return [one for one in psutil.process_iter(["name"]) if one.info["name"].startswith("slurmstepd")]

    def _run(self, *command: str) -> None:
        with open(self.folder / f"{command[-1]}-{len(self._running)}.log", "wb") as log:
            self._running.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @staticmethod
    def _wait(*command: str) -> None:
        until = time.monotonic() + START
        while subprocess.run(command, capture_output=True, check=False, timeout=START).returncode:
            if time.monotonic() > until:
                raise TimeoutError(f"{' '.join(command)} does not answer")
            time.sleep(0.5)

    def _configuration(self) -> str:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 512
        return f"""{MARK}
ClusterName=snaketune
SlurmctldHost={self.host}(127.0.0.1)
AuthType=auth/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=5
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=1
SlurmUser=root
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
KillWait=30
MinJobAge=600
NodeName={self.host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
