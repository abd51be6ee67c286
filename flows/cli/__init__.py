"""The `factory` command: one file per room, each imported only as far as its command needs."""
