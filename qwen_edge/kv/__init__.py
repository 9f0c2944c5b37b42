"""Which tokens the KV cache holds, for whom, and what goes when it is full; copies of them, and files. No model."""
