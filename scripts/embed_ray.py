"""Embed very many images with Ray Data: crl/commands/embed.py."""

from crl.commands.embed import main

if __name__ == "__main__":
    main()
