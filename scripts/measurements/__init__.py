"""The measurements of benchmark.py; each function gives a row of its table."""
