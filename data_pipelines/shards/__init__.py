"""WebDataset tar shards and their Parquet index: writing, incremental sharding, random access.

writer.py        samples to a tar, byte for byte reproducible
index.py         the columns of the index, declared once; where the parts of a sample lie
incremental.py   only samples that no shard holds yet are made, spread over a Ray cluster
reader.py        random access by row number, arrays memory-mapped
"""
