"""Wan2.2 Animate-14B: a person in an image moves like the one in a video."""
