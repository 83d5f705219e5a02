"""Maps without tools through the provider's batch API: half the price, whenever it has time."""
