"""One interface over engines: matchers, tiles, memory, confidence."""
