"""The port to language models: anything that answers a request."""
