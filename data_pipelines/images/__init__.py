"""Images, with or without captions: sources, checks, and shards.

specs      configuration
examples   pairs of image and caption, and the rules of captions
kinds      image formats by suffix and first bytes, supported and not
loose      what loose image files share
folders    images with metadata.jsonl or metadata.csv
lines      the lines of these files
plain      images without captions
sidecars   images with a caption's file of their name
parquet    Parquet files with image bytes
tars       WebDataset tars
classes    classes of images, named by folders or by a column
shapes     generated images with exact captions
sources    any of these layouts, found and named
parts      encoded bytes of an example's image
buckets    sizes that images are cut to
boxes      depth and colours that an AVIF file states
colours    colours of any image to opaque 8-bit sRGB
changes    what is changed in an image, by name
pictures   encoded bytes to RGB of the wanted size
captions   the captions of an image that training draws from
frames     files of several frames, each frame an image
clips      frames of one clip
splits     train and validation split, given or drawn
sharding   checked samples in shards, over a Ray cluster
"""
