"""Wan2.2 A14B: text or images to video with two networks that take turns."""
