"""Joules: measured, shared out among requests and clients, and limited."""
