"""Files that nobody needs any more: found, listed with its size, and removed on request.

garbage.py    one thing that may go, and its removal
storage.py    attempts and checkpoints that no record names
machine.py    what killed processes left on this machine
collect.py    all of it
"""
