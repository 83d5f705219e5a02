"""The version of the package, for what names it."""

__version__ = "0.1.0"
