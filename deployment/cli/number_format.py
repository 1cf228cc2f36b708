"""How the command line writes figures: credit and shares. Money is written by `rewards.money`."""


def credit(micro_credits: int) -> str:
    """Micro-credits, grouped by thousands so that the last six digits read as parts of a token."""
    return f"{micro_credits:,}".replace(",", " ")


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{share:.{digits}%}"
