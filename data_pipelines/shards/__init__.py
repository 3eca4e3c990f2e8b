"""WebDataset tar shards and their Parquet index.

index         columns of the index and parts of a sample, declared once
damage        parts against their CRC-32 in the index
writer        samples to tar shards, byte for byte reproducible
incremental   sharding of samples that no shard holds yet, spread over a Ray cluster
reader        random access by row number, arrays memory-mapped
"""
