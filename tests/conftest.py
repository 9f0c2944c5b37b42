"""For every tier: what a test finds must not depend on how busy the machine is, or on who started the tests."""

import signal

from hypothesis import settings

settings.register_profile("project", deadline=None)
settings.load_profile("project")

# a shell starts what runs in the background with SIGINT ignored, and so would the commands that the tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
