"""Usage, trace, graph, tokens, folders and threads: what everything above records or uses."""
