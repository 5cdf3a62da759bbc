"""SQ-GAN's networks; they need PyTorch and nothing of the rest but names."""
