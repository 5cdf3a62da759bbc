"""JPEG2000 as a baseline: the codec, and the anatomy of a codestream that lets it be cut."""
