"""The commands, one file per group; `main` joins them."""
