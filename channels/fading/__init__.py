"""Symbol and bit channels: what the air does to complex symbols or to bits.

`block` holds AWGN, Rayleigh and Rician block fading, `tdl_cdl` the multipath models of 3GPP under
OFDM, `binary` the bit channels.
"""
