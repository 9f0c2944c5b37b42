"""Measures servers over HTTP, as a client sees them: the same workloads for each server, in turn."""
