"""The renderer: a small process that runs the model's chat template, and the daemon's handle on it."""
