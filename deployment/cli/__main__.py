"""`python -m deployment.cli` is `protoken`, also where its script is not on the path."""

from deployment.cli import main

if __name__ == "__main__":
    main()
