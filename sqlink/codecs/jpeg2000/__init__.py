"""JPEG2000 as a baseline: the codec, and the structure of codestreams, needed to cut them."""
