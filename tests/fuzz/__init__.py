"""What strangers can send before they are known, held to properties (issue 6, 5).

`make test` runs a bounded number of examples, `make fuzz` many, and where atheris installs also guided by coverage. A
fault that was found becomes an @example, or a test of its own beside the code that was wrong. Tests here are plain
functions without fixtures, which is what coverage_guided.py can drive.
"""
