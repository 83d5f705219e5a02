"""The map stage: shards go through an agent or a function, in parallel, and findings come back."""
