"""Wan2.2 TI2V-5B: text, or text and an image, to video in the latents of a VAE of its own."""
