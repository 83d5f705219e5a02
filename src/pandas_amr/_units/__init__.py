"""Units, shards, and the frames and texts that they are made from."""
