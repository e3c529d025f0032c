"""Worker processes are spread over hosts, or refused before anything runs."""

import json

import pytest
from snaketune.config import experiments, sections
from snaketune.config.experiments import expand
from snaketune.errors import ConfigError


def test_workers_without_hosts_run_on_this_machine():
    assert experiments.worker_hosts(2, None) == ["127.0.0.1"] * 2


def test_workers_are_spread_evenly_over_a_list_of_hosts():
    addresses = ["10.0.0.2", "10.0.0.1"]
    assert experiments.worker_hosts(4, addresses) == ["10.0.0.2", "10.0.0.2", "10.0.0.1", "10.0.0.1"]
    assert experiments.launch_arguments(4, addresses) == ["--hosts", "10.0.0.2,10.0.0.1", "-n", "2"]


def test_hostfile_names_the_host_of_each_worker(tmp_path):
    hostfile = tmp_path / "hosts.json"
    hostfile.write_text(json.dumps({"backend": "jaccl", "hosts": [{"ssh": "mac-2"}, {"ssh": "mac-1"}]}))
    assert experiments.worker_hosts(2, str(hostfile)) == ["mac-2", "mac-1"]
    assert experiments.launch_arguments(2, str(hostfile)) == ["--hostfile", str(hostfile)]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"workers": 3, "hosts": ["a", "b"]}, "3 workers cannot be spread evenly over 2 hosts"),
        ({"hosts": ["a", "b"]}, "1 workers cannot be spread evenly over 2 hosts"),
        ({"workers": 2, "hosts": "nowhere.json"}, "this hostfile cannot be read"),
    ],
)
def test_workers_that_do_not_fit_their_hosts_are_refused_with_the_configuration(train, message):
    with pytest.raises(ConfigError, match=message):
        expand(sections.load({"run": "x", "train": train}))
