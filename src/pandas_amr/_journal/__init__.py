"""The journal: the durable store of findings, reductions and plans, cache and checkpoint."""
