"""Wan2.2 TI2V-5B: text, or text and an image, to video in the latent space of the Wan2.2 VAE."""
