"""Planning: which code and modulation to use at an SNR, and how to share redundancy out."""
