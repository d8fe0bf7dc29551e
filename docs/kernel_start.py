"""Run by every kernel that `make docs` starts: tutorials run in the repository's root, as a reader would run them."""

__import__("os").chdir(__import__("pathlib").Path(__import__("os").environ["PYTHONSTARTUP"]).parents[1])
