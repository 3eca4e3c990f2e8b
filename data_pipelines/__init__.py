"""Raw data to batches: sources, checks, preprocessing, WebDataset shards and step-addressed loading.

Layers, lower ones first; no import runs back up. ``unet_models`` may import those before ``progress``, too:

processes       names of processes that others can tell to be gone
cores           number of CPUs that this process may use
errors          errors that users see, and problems of the input
specs           base class of configurations and records
random_streams  random numbers addressed by (seed, stream, step, position)
batches         types of batches, the interface to ``unet_models``
mirroring       positions beyond the ends of an axis, mirrored back inside
atomic          files and folders that appear complete or not at all
temporary       temporary folders, removed even after their process was killed
remote_errors   errors from another process as text
progress        progress display
notices         what was assumed, converted or skipped, counted and shown
storage         files by URI
digests         content digests
files           bounded, checked decoding shared by volumes and images
shards          writer, index, incremental sharding, reader
volumes         sources, checks and sharding of volumes
images          sources, checks and sharding of images
loading         batches as a pure function of (seed, step)
"""
