"""The dashboard: runs in a browser. `create_app(runs)` is the door; it needs the extra `ui`."""
