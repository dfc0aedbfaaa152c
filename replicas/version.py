"""Which version of the router this is, for people and metrics to see. A test holds it and pyproject.toml together."""

VERSION = "0.1.0"
