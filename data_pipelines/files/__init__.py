"""Bounded, checked decoding that volumes and images share.

reading   one error for whatever a decoder raises on a bad file
pillow    limits, EXIF orientation and colour modes of images opened with Pillow
"""
