"""What a change would gain: predictions before anything is tried."""
