"""Which tokens the KV cache holds, for whom, and what goes when it is full. Pure: no model, no clock, no threads."""
