"""Images, disparity maps and videos: read and written."""
