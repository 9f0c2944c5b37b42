"""The daemon's handle on the engine process: starts, watches, unloads and replaces it."""
