"""What runs inside a sandbox, and what makes and confines its process."""
