"""``python -m nnrcodec encode ARGS``: the commands, where they are not on the path."""

import sys

from nnrcodec.cli.start import main

if __name__ == "__main__":
    sys.exit(main())
