"""Planning of links: code and modulation for an SNR, and the allocation of redundancy."""
