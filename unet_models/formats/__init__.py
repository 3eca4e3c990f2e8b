"""File formats of networks that other programs read or write.

denoiser_folder    denoiser of any backbone as a folder, read and written
diffusers_folder   denoising U-Net as a folder of diffusers, read and written
diffusers_config   DenoisingUNetSpec from and to the config.json of such a folder
diffusers_pipeline noise process and scale of latents of a pipeline of diffusers, read
clip_folder        CLIP as a folder of transformers, read and written
clip_config        configuration and tokenizer of such a folder
nnunet             checkpoint of nnU-Net, read without running what is pickled in it
trace              network to graph (torch.export), with named inputs and open sizes
export             graph to file: ONNX and .pt2
"""
