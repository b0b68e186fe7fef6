"""What a folder or file holds: its components, adapters and problems, and what can be run from it.

Reads headers only; no weight is read and nothing is written.
"""
