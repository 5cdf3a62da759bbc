"""A link to play with: a local page whose sliders send one picture, again and again."""
