"""The daemon's handle on the engine process."""
