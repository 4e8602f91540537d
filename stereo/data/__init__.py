"""Images, disparities and data sets: what is read from disk and written to it."""
