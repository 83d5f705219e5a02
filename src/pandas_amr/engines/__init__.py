"""The port to where work runs."""
