"""Symbol and bit channels: the physical channel that symbols or bits cross.

`block` holds AWGN, Rayleigh and Rician block fading, `tdl_cdl` the multipath models of 3GPP under
OFDM, `binary` the bit channels.
"""
