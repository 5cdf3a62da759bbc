"""Settings of the running process: devices, threads, the C library's allocator, precision."""
