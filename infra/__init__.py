"""Where things run and are kept: settings, workspace, store, sources, data versions, progress."""
