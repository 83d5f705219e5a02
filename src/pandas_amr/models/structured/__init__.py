"""Structured output: find the best form that a server accepts for a schema, and remember it.

A JSON-schema response is best; then a forced tool call, which is read as an answer; then a JSON
object with the schema in words; then words alone.
"""
