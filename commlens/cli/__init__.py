"""The `commlens` command: one file a command, one error boundary (`app.main`), no metric of its own."""
