"""`python -m bridge`: the same as the command `passerelle`."""

from bridge.cli import main

if __name__ == "__main__":
    main()
