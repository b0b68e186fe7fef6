"""The Wan2.2 VAE: 16x16 pixels to a latent of 48 channels."""
