"""What is carried from period to period, as it is written down."""

from rewards.settlement.balances import Balance, Purse, purse_of
from rewards.settlement.policy import Currency

EUR = Currency("EUR", 2)


def test_a_purse_is_read_back_as_it_was_written():
    """Every field of every balance comes back, holdbacks with their periods; the names of the fields are settled."""
    purse = Purse({"bank": Balance(-7, 3, 2, ((4, 500), (5, 1)), 9), "clinic": Balance(carry=-1)}, 11, 12)
    document = purse.to_document(EUR)

    assert {
        "currency": "EUR",
        "minor_digits": 2,
        "pool_fraction": "11",
        "fee_fraction": "12",
        "balances": [
            {
                "account": "bank",
                "residue": "-7",
                "carry": 3,
                "held": 2,
                "holdbacks": [{"released_in": 4, "amount": 500}, {"released_in": 5, "amount": 1}],
                "clawback": 9,
            },
            {"account": "clinic", "residue": "0", "carry": -1, "held": 0, "holdbacks": [], "clawback": 0},
        ],
    } == document
    assert (EUR, purse) == purse_of(document)


def test_what_falls_due_is_what_is_there_less_what_is_owed():
    """Carried, held and released money falls due, less a claw-back; nothing of it while a hold lasts, never below 0."""
    balance = Balance(carry=3, held=2, holdbacks=((4, 500), (5, 1)), clawback=9)

    assert [0, 496, 497, 0] == [
        balance.due(3, on_hold=False),
        balance.due(4, on_hold=False),
        balance.due(5, on_hold=False),
        balance.due(5, on_hold=True),
    ]
    assert 0 == Balance(carry=-1).due(1, on_hold=False)
