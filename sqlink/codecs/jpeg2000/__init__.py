"""JPEG2000 as a baseline: the codec, and the structure of codestreams, which lets them be cut."""
