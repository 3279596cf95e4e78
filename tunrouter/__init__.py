"""tunrouter: one flat, encrypted network for every container on every host, from one shared password."""

__version__ = "0.1.0"
