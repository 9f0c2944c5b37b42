"""The settings: what they are, where they are read, what is wrong with them, and where files lie."""
