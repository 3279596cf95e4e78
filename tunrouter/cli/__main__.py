"""`python -m tunrouter.cli`."""

from tunrouter.cli import main

if __name__ == "__main__":
    main()
