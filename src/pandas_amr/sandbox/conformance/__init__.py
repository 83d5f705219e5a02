"""A kit of attempts to break out of a sandbox, which tests any sandbox."""
