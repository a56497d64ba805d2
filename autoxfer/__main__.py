"""``python -m autoxfer``."""

from autoxfer.cli import main

if __name__ == "__main__":
    main()
