"""The `protoken` command: one module per noun, assembled in `commands`.

Every command takes `--json` where it prints data. Exit code 0 on success, 2 on wrong usage, and 1 otherwise, with one
line on stderr that names what is wrong. Where nobody foresaw what went wrong, PROTOKEN_TRACEBACK=1 shows where it did.

    books/         commands over the books: they need the ledger's database or a file, and no model
    doctor/        what the service would use, looked at as it is
    models/        commands that load, build or check models
    service/       commands that start the service or show it
    commands       every command with its first sentence, and how a command ends that fails
    configs        where `configs/` is, in a checkout and in an installed wheel alike
    extras         which modules each extra of the installation brings, and what to install
    heat_map       tokens in the colours of the clients that taught them
    number_format  credit and shares as the command line writes them
    on_demand      commands that are imported when they are called
    options        options that several nouns of the command line share
    output         JSON, lines of text, and a picture of what was shown
    progress       how far long work is: a bar, or now and then a line
    tables         tables in which no word is broken, however narrow the terminal
"""

from deployment.cli.commands import main

__all__ = ["main"]
