"""What counters of links and devices say, beside the collectives that used them."""
