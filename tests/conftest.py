"""Settings for all tests: one thread a process, and hypothesis measures no time, since machines are shared."""

import os

from hypothesis import settings

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

settings.register_profile("steady", deadline=None, print_blob=True)
settings.load_profile("steady")
