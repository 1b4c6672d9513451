"""`python -m unibrivl` is the same as the `unibrivl` command."""

import sys

from unibrivl.cli import main

if __name__ == "__main__":
    sys.exit(main())
