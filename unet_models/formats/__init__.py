"""File formats of networks that other programs read or write.

diffusers_folder   denoiser as a folder of diffusers, read and written
diffusers_config   DenoiserSpec from and to the config.json of such a folder
clip_folder        CLIP as a folder of transformers, read and written
clip_config        configuration and tokenizer of such a folder
trace              network to graph (torch.export), with named inputs and open sizes
export             graph to file: ONNX and .pt2
"""
