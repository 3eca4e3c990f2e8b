"""Noise schedules, samplers and sliding-window prediction.

noise            diffusion process: schedules, noisy latents, training targets, loss weights
samplers         sampling of latents with classifier-free guidance
sliding_window   prediction of images larger than the network's window, with test-time augmentation
"""
