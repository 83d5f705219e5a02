"""Where rows are mapped if not in this process: on a cluster, partition by partition."""
