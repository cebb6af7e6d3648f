"""python -m crl: see crl/commands/main.py."""

from crl.commands.main import main

if __name__ == "__main__":
    main()
