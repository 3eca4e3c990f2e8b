"""Configuration of networks, training and sampling. Light to import: no torch.

networks       segmentation U-Net
presets        published segmentation networks
valid          sizes of networks with valid convolutions
denoisers      denoisers of latent diffusion, one class per backbone
loop           settings of every training: optimizer, precision, validation, checkpoints
segmentation   loss, augmentation, training and sliding-window prediction of a segmentation U-Net
diffusion      noise schedule, training and sampling of a latent-diffusion model
restoration    tasks of image restoration, their training, tiles
encoders       training of the autoencoder and of the small CLIP
"""
