"""Links: packets over a symbol or bit channel, coded, uncoded, adaptive or ideal.

A link is a packet channel that consists of a modem, a code and a channel of `channels.fading`.
"""

BUILT_IN = {
    "adaptive": "channels.link.adaptive",
    "coded": "channels.link.coded",
    "ideal": "channels.link.ideal",
    "lookup": "channels.link.coded",
    "uncoded": "channels.link.uncoded",
}
"""Name -> the module that registers the link."""
