"""Everything stored against its digests, for ``unetflow verify``.

fault.py      what was checked, and what is wrong
shards.py     shards and latents against their indexes
stages.py     records, their outputs, and checkpoints
storage.py    a storage as a whole, with progress
"""
