"""The settings: their definitions, how they are read and checked, and the locations of files."""
