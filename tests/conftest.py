"""For every tier: what a property test finds must not depend on how busy the machine is."""

from hypothesis import settings

settings.register_profile("project", deadline=None)
settings.load_profile("project")
