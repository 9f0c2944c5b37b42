"""The KV cache manager: which cells hold which tokens, for whom, what is evicted, and the tiers below. No model."""
