#!/usr/bin/env bash
# Writes requirements.lock and requirements-dev.lock from requirements*.txt: all that they bring along, for every platform,
# with the hashes of its files. Versions that are locked stay, unless requirements*.txt ask for others. uv is used for this
# alone, because pip cannot resolve for another platform; docs/dependencies.md says why pip installs.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# uv reads nothing of pip's configuration; of several indexes only the first has to have the files of all platforms
index=$(python3 -m pip config get global.index-url 2>/dev/null || true)
export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-${index:-https://pypi.org/simple}}}
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9

# setup/torch_build.py and setup/llama_build.py choose these two; what torch needs whatever its build is locked all the same
grep -vE '^(torch|llama-cpp-python)==' requirements.txt >"$work/requirements.txt"
printf '%s\n' sympy networkx 'setuptools>=77' diskcache >>"$work/requirements.txt"
printf '%s\n' "torch; sys_platform == 'never'" "llama-cpp-python; sys_platform == 'never'" >"$work/overrides.txt"

lock() {
	"$work/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-emit-package torch --no-emit-package llama-cpp-python --custom-compile-command 'make lock' \
		--override "$work/overrides.txt" "$@"
}
lock "$work/requirements.txt" --output-file requirements.lock
lock requirements-dev.txt --constraint requirements.lock --output-file requirements-dev.lock
