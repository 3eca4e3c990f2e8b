"""Random faults for as long as one likes: ``python -m tests.soak``.

faults.py     kinds of faults, and what each needs
pipeline.py   one pipeline under faults, run until it is registered
"""
