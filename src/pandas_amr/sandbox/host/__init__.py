"""The host's side of a session: who begins sandboxes and what is said through their channel."""
