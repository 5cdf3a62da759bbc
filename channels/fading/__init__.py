"""Symbol and bit channels, the physical channels under a link.

`block` has AWGN, and Rayleigh and Rician block fading; `jakes` has fading with Doppler, `shadowing`
attenuation in bursts, `tdl_cdl` the multipath models of 3GPP with OFDM, `binary` the bit channels.
"""

BUILT_IN = {
    "awgn": "channels.fading.block",
    "cdl": "channels.fading.tdl_cdl",
    "gilbert_elliott": "channels.fading.shadowing",
    "jakes": "channels.fading.jakes",
    "rayleigh": "channels.fading.block",
    "rician": "channels.fading.block",
    "tdl": "channels.fading.tdl_cdl",
}
"""Name -> the module that registers the symbol channel."""

BUILT_IN_FOR_BITS = {
    "bec": "channels.fading.binary",
    "bsc": "channels.fading.binary",
}
"""Name -> the module that registers the bit channel."""
