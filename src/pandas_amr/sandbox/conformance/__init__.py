"""The kit that attacks a sandbox: attempts, and what each of them must not do."""
