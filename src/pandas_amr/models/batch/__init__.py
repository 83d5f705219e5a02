"""The batch API of a server: what goes in, what comes back, what is remembered between two processes."""
