"""An agent: a model and tools, in turns, until something is submitted. Knows nothing of frames."""
