"""What was measured of models on this machine, and is kept."""
