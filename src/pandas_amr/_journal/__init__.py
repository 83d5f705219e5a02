"""The journal: findings and reductions that were paid for, durable, found again by their keys."""
