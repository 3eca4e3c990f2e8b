"""Networks, one per file, and the blocks they share.

build            the network of a spec: segmentation networks and denoisers
unet             segmentation U-Nets, 2-D and 3-D: an encoder and a decoder
multimodal       U-Net whose coarsest features attend to a text and a sound
spectrogram      log-mel spectrogram as convolutions with fixed weights
ensemble         networks of one architecture that vote, as one network
blocks/          blocks of encoders and decoders, one file per type
decoders/        decoders, one file per type
parts            blocks and skip connection of a caller, in place of those of a spec
skips            skip connections and attention gates
slices           networks of images over the slices of volumes
early_exit       leaving the decoder where a coarser head is confident
inspection       attention-gate maps and saliency of a segmentation U-Net
layers           convolution, normalisation, activation, upsampling
denoiser         base of the denoisers of latent diffusion: one call signature
denoisers/       denoisers, one file per backbone: U-Net, U-ViT, DiT
denoiser_blocks  time embedding of the denoisers; residual blocks and levels of the denoising U-Net
attention        attention and transformer blocks of the denoisers
text_attention   maps of the attention to text, recorded while sampling
patches          patches of latents as tokens and back
autoencoder      image autoencoder (diffusers' AutoencoderKL)
discriminator    discriminator of image patches
clip             small CLIP (transformers')
tokenizer        byte-pair tokenizer of the small CLIP
pretrained       folders of transformers and diffusers, loaded completely or not at all
weights_file     safetensors file of weights, checked
inception        Inception-v3 of the FID
presets          specs of published denoisers
"""
