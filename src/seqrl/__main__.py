"""`python -m seqrl` is the `seqrl` command."""

from seqrl.cli import main

if __name__ == "__main__":
    main()
