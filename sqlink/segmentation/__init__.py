"""SQLink: segmentation."""
