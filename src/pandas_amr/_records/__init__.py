"""What every room above records or uses: usage, trace, graph, tokens, folders, threads, locks."""
