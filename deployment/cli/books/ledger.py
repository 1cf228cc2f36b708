"""`protoken ledger`: the commands over the ledger as a whole, each loaded when it is called."""

import typer

from deployment.cli.on_demand import Deferred, OnDemand


class _Commands(OnDemand):
    deferred = (
        Deferred(
            "seal",
            "deployment.cli.books.log:seal",
            "Put what is new into the Merkle log and sign a checkpoint; the running service does so by itself.",
        ),
        Deferred(
            "checkpoint",
            "deployment.cli.books.log:checkpoint",
            "Print the latest checkpoint, a signed note to keep: whoever holds it sees if history is ever rewritten.",
        ),
        Deferred(
            "proof",
            "deployment.cli.books.log:proof",
            "Print the proof (JSON) that a client's entry of a response is in the books that were signed.",
        ),
        Deferred(
            "bundle-proof",
            "deployment.cli.books.log:bundle_proof",
            "Print the proof (JSON) that a bundle was published: its manifest's hash is in the books that were signed.",
        ),
        Deferred(
            "check-proof",
            "deployment.cli.books.check_proof:check_proof",
            "Check a proof offline: of an entry or a published bundle in the signed books, or of history kept as it "
            "was.",
        ),
        Deferred(
            "verify",
            "deployment.cli.books.verify:verify",
            "Rebuild the books from their rows alone; exit code 1 names the first row that differs.",
        ),
        Deferred(
            "recompute",
            "deployment.cli.models.recompute:recompute_response",
            "Attribute a booked response again, from its request and its answer; exit code 1 where it comes to other "
            "credit.",
            extra="attribution",
            noun="ledger",
        ),
        Deferred(
            "backup",
            "deployment.cli.books.backup:backup",
            "Copy the whole ledger to a file, also while the service runs, and read the copy back before it is "
            "called done.",
        ),
        Deferred(
            "restore",
            "deployment.cli.books.backup:restore",
            "Make the ledger from a copy, where there is none; on PostgreSQL, in an empty database.",
        ),
        Deferred(
            "migrate",
            "deployment.cli.books.backup:migrate",
            "Bring a ledger that an older protoken made to this one's schema; stop the service and keep a backup "
            "before.",
        ),
        Deferred(
            "balances",
            "deployment.cli.books.entries:balances",
            "Credit of every account since the beginning; the sum is the generated tokens × 1 000 000.",
        ),
        Deferred(
            "entries",
            "deployment.cli.books.entries:entries",
            "Receipts and their entries, in the order in which they were booked.",
        ),
        Deferred(
            "reverse",
            "deployment.cli.books.entries:reverse",
            "Take a response's credit back by counter-entries, once; what a settled period paid for it is clawed back.",
        ),
    )


app = typer.Typer(
    cls=_Commands,
    help="The credit ledger: what is booked, and the signed log that proves it.",
    no_args_is_help=True,
)
