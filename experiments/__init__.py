"""SQLink: experiments."""
