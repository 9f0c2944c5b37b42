"""Energy: measured in joules, attributed to requests and clients, and limited per client."""
