"""What runs inside a sandbox, or makes the process that it is."""
