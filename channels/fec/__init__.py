"""Forward error correction and modulation with Sionna: LDPC, polar codes, CRC, QAM."""
