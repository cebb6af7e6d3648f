"""Look at pictures under criteria of your own.

usage: crl COMMAND ...     crl COMMAND --help lists its options
       crl --version

  crl explore   a folder of pictures: clusters, a page, search, labels
  crl texts     have a language model write the texts of a criterion
  crl embed     embed very many pictures, on all GPUs of a machine or a cluster

For example, with texts of your own, and with those of a language model:

    crl explore ~/pictures --texts mood=mood.txt --vlm siglip2
    crl explore ~/pictures --criterion mood --llm llama3.1 --base-url URL
"""

from crl.run.command import command

import sys
from importlib import import_module

from crl import __version__
from crl.run.errors import UserError, nearest

COMMANDS = ("explore", "texts", "embed")  # each is a module of crl.commands


@command
def main(argv: list[str]) -> None:
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__.strip())
    elif name == "--version":
        print(f"crl {__version__}")
    elif name in COMMANDS:
        sys.argv = [f"crl {name}", *rest]  # its help and the page name what was run
        import_module(f"crl.commands.{name}").main()
    else:
        raise UserError(f"crl has no command {name!r}; {nearest(name, COMMANDS)}")


if __name__ == "__main__":
    main()
