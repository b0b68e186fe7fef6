"""Wan2.2 A14B: text or images to video with one network for high and one for low noise."""
