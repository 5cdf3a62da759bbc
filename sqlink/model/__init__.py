"""Networks of SQ-GAN and DeepJSCC, in PyTorch; they use little else of the package."""
