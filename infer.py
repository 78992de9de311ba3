"""Speak a text in the voice of a recording: `python infer.py --text "Hello there."`, or see `--help`."""

import sys

from tts.cli import main

if __name__ == "__main__":
    sys.exit(main())
