"""Look at a folder of images under criteria of your own: crl/commands/explore.py."""

from crl.commands.explore import main

if __name__ == "__main__":
    main()
