"""The life of one request, and what heat and energy allow it."""
