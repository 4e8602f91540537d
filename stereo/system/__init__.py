"""Files, processes, devices, threads and limits."""
