"""Inspection of a folder or file: components, adapters, problems, and possible runs.

Reads headers only: reads no weights and writes nothing.
"""
