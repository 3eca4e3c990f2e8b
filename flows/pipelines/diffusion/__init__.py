"""The stages of the latent-diffusion pipeline: captioned images -> registered model."""
