"""Tests of the command line; most run the real command in a process of its own."""
