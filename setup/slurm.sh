#!/usr/bin/env bash
# What `make test-cluster` needs: Debian's slurm-wlm and munge, where they may be installed, and Snakemake's executor for
# Slurm in .cluster, apart from .venv since Snakemake would load it at every start.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurm-wlm munge
	else
		echo "snaketune: no Slurm here, and it is installed by root on Debian only; the cluster tests will be skipped" >&2
	fi
fi
if ! [ .cluster/.done -nt requirements-cluster.txt ]; then
	.venv/bin/python -m pip install --quiet --no-deps --upgrade --target .cluster -r requirements-cluster.txt
	touch .cluster/.done
fi
