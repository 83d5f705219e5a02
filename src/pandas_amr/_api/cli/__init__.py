"""The command line: what `amr` and `python -m pandas_amr` run."""
