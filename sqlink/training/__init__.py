"""Training of SQ-GAN and of the two built-in segmenters."""
