"""Programs beside the package: each is run from this checkout."""
