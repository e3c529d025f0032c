"""Settings for all tests: hypothesis measures no time, since the machines that run this are shared."""

from hypothesis import settings

settings.register_profile("steady", deadline=None, print_blob=True)
settings.load_profile("steady")
