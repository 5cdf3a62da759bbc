"""Data sets: pictures in a fixed order, most of them with maps of what their pixels show."""
