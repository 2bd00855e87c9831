"""Tables of many ranks, groups and links: what is alike on one line, the worst named."""
