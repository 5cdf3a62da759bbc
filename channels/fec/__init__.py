"""Forward error correction and modulation, all of it Sionna's: LDPC, polar codes, CRC, QAM."""
