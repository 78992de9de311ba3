"""Train one stage (`fit`), or all of them from a manifest (`all`)."""

from tts.training.cli import main

if __name__ == "__main__":
    main()
