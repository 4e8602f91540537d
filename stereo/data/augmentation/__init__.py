"""What training does to a pair."""
