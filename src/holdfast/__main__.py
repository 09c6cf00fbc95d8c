"""`python -m holdfast`: the same as the command `holdfast`."""

from holdfast.cli.main import main

# A process that runs activities imports this module again, under another name.
if __name__ == "__main__":
    main()
