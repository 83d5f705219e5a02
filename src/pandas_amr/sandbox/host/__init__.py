"""The host's side: start sandboxes, run cells in their sessions, check what comes back."""
