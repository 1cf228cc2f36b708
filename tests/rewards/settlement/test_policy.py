"""A policy is valid or refused with the field named."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from rewards.errors import PolicyError
from rewards.settlement.policy import Policy
from rewards.settlement.policy_file import load_policy

EXAMPLE = Path(__file__).parents[3] / "configs" / "policy.yaml"


def test_the_example_is_a_policy():
    """The example that is shipped loads, and says what its comments say."""
    assert Policy(pool=1_000_000, currency="EUR", minor_digits=2, commons="retain") == load_policy(EXAMPLE)


def test_defaults():
    """Pool and currency must be said; two decimal places and a retained commons go without saying."""
    assert (2, "retain") == (Policy(pool=1, currency="EUR").minor_digits, Policy(pool=1, currency="EUR").commons)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("pool: -5", "pool"),
        ("pool: 10.5", "pool"),
        ("pool: 10.0", "pool"),
        ("pool: '10'", "pool"),
        ("pool: true", "pool"),
        ("currency: eur", "currency"),
        ("currency: EURO", "currency"),
        ('currency: "EUR\\n"', "currency"),
        ("minor_digits: 5", "minor_digits"),
        ("minor_digits: -1", "minor_digits"),
        ("commons: burn", "commons"),
        ("fee: 3", "fee"),
    ],
)
def test_a_bad_field_is_named(tmp_path, line, named):
    """A field out of its range, of the wrong kind or unknown is refused; the file and the field are named."""
    fields = {"pool": "pool: 100", "currency": "currency: EUR"}
    fields[line.partition(":")[0]] = line
    path = tmp_path / "policy.yaml"
    path.write_text("\n".join(fields.values()))
    with pytest.raises(PolicyError, match=rf"policy\.yaml: {named}: "):
        load_policy(path)


@pytest.mark.parametrize(
    ("text", "named"),
    [("pool: 5", "currency: is missing"), ("", "document"), ("- a", "document"), ("pool: [", "not YAML")],
)
def test_what_is_no_policy_is_refused(tmp_path, text, named):
    """Missing fields, other documents and broken YAML are refused in one line."""
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError, match=named) as refusal:
        load_policy(path)

    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("number", ["010", "0x10", "0b1", "1:30", "-010"])
def test_a_number_that_yaml_reads_as_another_is_refused(tmp_path, number):
    """A pool of 010 is no pool of eight, and a fee of 1:30 no fee of ninety percent."""
    path = tmp_path / "policy.yaml"
    path.write_text(f"currency: EUR\npool: {number}\n")
    with pytest.raises(PolicyError, match=f"{number} is no decimal number"):
        load_policy(path)
    path.write_text("currency: EUR\npool: 1_000\n")

    assert 1000 == load_policy(path).pool


def test_a_missing_file_is_named(tmp_path):
    """A policy that is not there is named with the reason."""
    with pytest.raises(PolicyError, match=r"none\.yaml: No such file"):
        load_policy(tmp_path / "none.yaml")


def test_a_policy_cannot_change():
    """A policy is frozen: what a period was settled by stays what it was."""
    with pytest.raises(ValidationError):
        Policy(pool=1, currency="EUR").pool = 2


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"currency": "EUR"}, "pool, price_per_million_tokens: neither is given; give exactly one of the two"),
        (
            {"currency": "EUR", "pool": 1, "price_per_million_tokens": 1},
            "pool, price_per_million_tokens: both is given; give exactly one of the two",
        ),
        ([1], "document: must be a mapping of fields, not [1]"),
        (
            {"currency": "EUR", "pool": 1, "fee": 3},
            f"fee: is no field of a policy; the fields are {', '.join(Policy.model_fields)}",
        ),
        (
            {"currency": "EUR", "pool": 1, "caps": {"commons": 5}},
            f"caps.commons: must be {Policy.model_fields['caps'].description}, not 'commons'",
        ),
        (
            {"pool": -1},
            (
                f"currency: is missing; must be {Policy.model_fields['currency'].description}; "
                f"pool: must be {Policy.model_fields['pool'].description}, not -1"
            ),
        ),
    ],
)
def test_a_fault_is_told_whole(document, told):
    """Where it is, what would be right and what was found, letter by letter; several faults one after the other."""
    with pytest.raises(PolicyError) as refusal:
        Policy.from_mapping(document)

    assert f"policy: {told}" == str(refusal.value)
