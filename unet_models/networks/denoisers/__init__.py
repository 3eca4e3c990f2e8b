"""Denoisers of latent diffusion, one file per backbone. The name of a file is its name in ``train.model.backbone``.

unet  U-Net with transformers at some levels (Ho 2020; Rombach 2022)
uvit  transformer with long skip connections: all conditions are tokens (Bao 2023)
dit   transformer whose layers are modulated by timestep and class, with cross-attention to text (Peebles 2023)

``unet_models.networks.build.build_denoiser`` builds the one of a spec.
"""
