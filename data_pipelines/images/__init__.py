"""Captioned images: sources, checks, and shards.

specs      configuration
examples   pairs of image and caption, and the rules of captions
folders    loose image files with captions beside them
archives   Parquet files and WebDataset tars
shapes     generated images with exact captions
sources    any of these layouts, found and named
parts      encoded bytes of an example's image
buckets    sizes that images are cut to
pictures   encoded bytes to RGB of the wanted size
sharding   checked samples in shards, over a Ray cluster
"""
