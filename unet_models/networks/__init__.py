"""Networks, one per file, and the blocks they share.

build            the segmentation network of a spec
unet             segmentation U-Nets, 2-D and 3-D: an encoder and a decoder
blocks/          blocks of encoders and decoders, one file per type
decoders/        decoders, one file per type
skips            skip connections and attention gates
inspection       attention-gate maps and saliency of a segmentation U-Net
layers           convolution, normalisation, activation, upsampling
denoiser         denoising U-Net of latent diffusion
denoiser_blocks  time embedding, residual blocks and levels of the denoiser
attention        transformer blocks of the denoiser
autoencoder      image autoencoder (diffusers' AutoencoderKL) and its patch discriminator
clip             small CLIP (transformers')
tokenizer        byte-pair tokenizer of the small CLIP
pretrained       folders of transformers and diffusers, loaded completely or not at all
inception        Inception-v3 of the FID
presets          specs of published denoisers
"""
