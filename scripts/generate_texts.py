"""Ask an LLM for the texts of a criterion: crl/commands/texts.py."""

from crl.commands.texts import main

if __name__ == "__main__":
    main()
