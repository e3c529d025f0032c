#!/usr/bin/env bash
# Find a Python that the project runs on, and hand over to install.py.
set -euo pipefail
cd "$(dirname "$0")/.."

usable() {
    "$1" -c 'import sys, ensurepip, venv; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# an environment that was moved here from elsewhere points to the old place
if grep -qsF " $PWD" .venv/.done-virtual-environment && .venv/bin/python -c '' 2>/dev/null; then
    exec .venv/bin/python setup/install.py "$@"
fi
for name in python3.11 python3.12 python3.13 python3; do
    # a name may stand for several interpreters; the first that works is taken
    while IFS= read -r path; do
        if usable "$path"; then
            exec "$path" setup/install.py "$@"
        fi
    done < <(type -ap "$name" || true)
done
echo "snaketune: no Python 3.11, 3.12 or 3.13 with venv was found. Install one (macOS: brew install python@3.12;" \
    "Debian or Ubuntu: apt install python3 python3-venv) and run make again." >&2
exit 1
