"""An interactive link: a local page that sends a picture whenever a slider moves."""
