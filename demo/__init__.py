"""The product's whole job in one command: `make demo`.

Every module does one thing of it, `story` tells them in order, and tests/e2e runs the same story and asserts it.
"""
