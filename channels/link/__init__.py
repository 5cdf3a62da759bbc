"""Links that carry packets over a symbol or bit channel: coded, adaptive, ideal, by table.

Each is a packet channel made of a modem, a code and a channel of `channels.fading`.
"""
