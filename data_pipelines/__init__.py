"""Raw data to batches: sources, checks, preprocessing, WebDataset shards and step-addressed loading.

Layers, lower ones first; no import runs back up:

errors, specs, random_streams, batches,
processes,
mirroring                                 foundations that ``unet_models`` may import, too
notices                                   what was assumed, converted or skipped, counted and shown
atomic, storage, digests, progress        files by URI, content digests, progress display
files                                     bounded, checked decoding shared by volumes and images
shards                                    writer, index, incremental sharding, reader
volumes, images                           sources, checks and sharding of either kind of data
loading                                   batches as a pure function of (seed, step)
"""
