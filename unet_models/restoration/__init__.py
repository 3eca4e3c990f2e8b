"""Restoration of images: degradations on the fly, and what undoes them. Images are RGB, float32, 0..1.

task              interface of a task
build             task of a specification
denoising         Gaussian and Poisson noise
super_resolution  enlargement by 2, 3 or 4
inpainting        holes of strokes and boxes
colourisation     CIELAB's a and b from L
colour            sRGB to CIELAB and back, and quantised colours
resampling        bicubic interpolation by whole factors
held_out          degradation of a held-out image
similarity        structural similarity (SSIM)
losses            losses of restored images
restorer          networks that map degraded to restored images, for training and for prediction
tiles             prediction in tiles, exact at their borders
"""
