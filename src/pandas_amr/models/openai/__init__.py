"""A server that speaks OpenAI's protocol: one request, its answer, its failures."""
