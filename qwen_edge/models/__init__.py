"""Measured values of models on this machine, kept in files."""
