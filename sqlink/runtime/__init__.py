"""What the process runs on: threads, the C library's allocator, arithmetic precision."""
