"""Cases worked out by hand in which a single unit, or an account that is not named, decides."""

from dataclasses import replace
from fractions import Fraction

import pytest

from rewards.credit import COMMONS, PENDING
from rewards.errors import CreditError, PolicyError
from rewards.settlement.account_line import Line
from rewards.settlement.allocation import PeriodCredit, allocate
from rewards.settlement.balances import Balance, Opening, Purse
from rewards.settlement.commons_explanation import explain_commons
from rewards.settlement.document import FIRST_RULE, Settlement
from rewards.settlement.explanation import explain_line
from rewards.settlement.expressions import evaluate
from rewards.settlement.payout import clawback, pay_client
from rewards.settlement.pending import NO_ERROR, Stratum, StratumKey, _root_text, sampling_of, standard_errors
from rewards.settlement.policy import LARGEST, Currency, Policy
from rewards.settlement.rounding import UNIT, whole_units
from rewards.settlement.settle import settle

_M = 1_000_000
EUR = Policy(currency="EUR", pool=100)
BY_APPLICATION = {"currency": "EUR", "allocation": "user_centric"}


def credit_of(own, tokens, **fields):
    """Credit by application, and its sums."""
    credit = {}
    for amounts in own.values():
        for account, amount in amounts.items():
            credit[account] = credit.get(account, 0) + amount
    return PeriodCredit((0, 9), sum(tokens.values()), credit, own, tokens, **fields)


def parts_of(policy, credit):
    """Account -> its part, in trillionths."""
    return dict(allocate("p", credit, policy).parts)


class TestFeesOfApplications:
    """Under `user_centric` an application brings what it paid, to whoever earned in its own responses."""

    def test_where_nobody_paid_the_commons_has_the_whole(self):
        """Fees of nothing divide nothing, and the one unit that stands for the whole is its own."""
        policy = Policy(**BY_APPLICATION, fees={"shop": 0})
        assert {COMMONS: UNIT} == parts_of(policy, credit_of({"shop": {"bank": 5}}, {"shop": 1}))

    def test_an_application_without_tokens_brings_nothing_to_clients(self):
        """Its responses were reversed, or it has none; credit that is left of it is not paid from its fee."""
        policy = Policy(**BY_APPLICATION, fees={"shop": 3})
        own = {"shop": {"bank": 5}, "lab": {"bank": 5}}

        assert {COMMONS: 3 * UNIT} == parts_of(policy, credit_of(own, {"shop": 0, "lab": 2}))
        assert {COMMONS: 3 * UNIT} == parts_of(policy, credit_of(own, {"lab": 2}))

    def test_an_application_that_credited_nobody_brings_it_to_the_commons(self):
        """Tokens without credit by account, and credit of exactly nothing."""
        policy = Policy(**BY_APPLICATION, fees={"shop": 3})

        assert {COMMONS: 3 * UNIT} == parts_of(policy, credit_of({}, {"shop": 2}))
        assert {COMMONS: 3 * UNIT} == parts_of(policy, credit_of({"shop": {"bank": 0}}, {"shop": 2}))

    def test_who_is_worth_no_trillionth_has_nothing_where_another_is_capped(self):
        """Below its cap, with a part of nothing: what is cut from the other goes to the commons."""
        policy = Policy(**BY_APPLICATION, fees={"shop": 1}, cap_percent=40)
        parts = parts_of(policy, credit_of({"shop": {"bank": 10**15, "clinic": 1}}, {"shop": 2}))

        assert {"bank": 4 * UNIT // 10, "clinic": 0, COMMONS: 6 * UNIT // 10} == parts

    @pytest.mark.parametrize(
        ("own", "credit", "sums"),
        [
            ({"bank": 5}, {}, "sums to 5, not to its credit of 0"),
            ({}, {"bank": 5}, "sums to 0, not to its credit of 5"),
        ],
    )
    def test_sums_that_differ_are_told_both(self, own, credit, sums):
        """Whichever side does not name the account."""
        policy = Policy(**BY_APPLICATION, fees={"shop": 1})
        with pytest.raises(CreditError, match=f"^credit of 'bank' by application {sums}$"):
            allocate("p", PeriodCredit((0, 9), 1, credit, {"shop": own}, {"shop": 1}), policy)

    def test_who_has_nothing_in_an_application_has_none_of_its_fee(self):
        """Though it has credit elsewhere, where nobody pays."""
        policy = Policy(**BY_APPLICATION, fees={"shop": 3})
        credit = credit_of({"shop": {"clinic": 0}, "lab": {"clinic": 5}}, {"shop": 1, "lab": 1})
        assert {COMMONS: 3 * UNIT} == parts_of(policy, credit)

    def test_by_the_first_rule_a_price_caps_at_whole_units(self):
        """Half a million tokens at three a million are worth one and a half; the first rule knew no half."""
        policy = Policy(**BY_APPLICATION, fees={"shop": 10}, max_price_per_million_tokens=3)
        credit = credit_of({"shop": {"bank": 5}}, {"shop": 500_000})
        first = allocate("p", credit, policy, is_first_rule=True)

        assert {COMMONS: 85 * UNIT // 10, "bank": 15 * UNIT // 10} == parts_of(policy, credit)
        assert {COMMONS: 9 * UNIT, "bank": UNIT} == first.parts

    def test_an_account_of_nothing_needs_no_credit(self):
        """Naming it on one side alone is no difference."""
        policy = Policy(**BY_APPLICATION, fees={"shop": 1})
        credit = PeriodCredit((0, 9), 1, {"clinic": 2, "bank": 0}, {"shop": {"clinic": 2, "rider": 0}}, {"shop": 1})
        assert {COMMONS: 0, "clinic": UNIT} == parts_of(policy, credit)

    def test_without_credit_by_application_nothing_is_settled(self):
        """It is said what is missing."""
        policy = Policy(**BY_APPLICATION, fees={"shop": 1})
        words = "^allocation user_centric needs the credit and the tokens by application; they are missing$"
        for by_application, tokens in ((None, {"shop": 1}), ({"shop": {}}, None)):
            with pytest.raises(CreditError, match=words):
                allocate("p", PeriodCredit((0, 9), 1, {}, by_application, tokens), policy)


class TestPending:
    """Credit of responses that were not measured."""

    def test_what_was_never_measured_is_the_commons_of_its_application(self):
        """Which had no entry of that application before."""
        stratum = {StratumKey("law", "ab" * 32, "0.5", "shop"): Stratum(pending=1, pending_credit=5 * _M)}
        credit = PeriodCredit(
            (0, 9), 5, {PENDING: 5 * _M}, {"shop": {PENDING: 5 * _M}}, {"shop": 5}, strata=stratum
        )  # fmt: skip
        settled = credit.settle_pending("p")

        assert ({COMMONS: 5 * _M}, {"shop": {COMMONS: 5 * _M}}) == (settled.credit, settled.by_application)
        assert settled.tokens_by_application == {"shop": 5}

    def test_without_applications_there_are_none_afterwards(self):
        """Nothing is told apart that was not."""
        stratum = {StratumKey("law", "ab" * 32, "0.5"): Stratum(pending=1, pending_credit=5 * _M)}
        assert PeriodCredit((0, 9), 5, {PENDING: 5 * _M}, strata=stratum).settle_pending("p").by_application is None

    def test_two_applications_are_settled_each_by_its_own_and_added(self):
        """A client of both has the sum; two measured responses are enough to tell an error."""
        strata = {}
        for application, pending in (("shop", 6), ("lab", 9)):
            stratum = Stratum(pending=1, pending_credit=pending * _M)
            for _ in range(2):
                stratum.measure(3 * _M, [("bank", 2 * _M), ("rider", 1 * _M)])
            strata[StratumKey("law", "ab" * 32, "0.5", application)] = stratum
        sampling = sampling_of(strata, 27, "p", 0, 0)

        assert {"bank": 10 * _M, "rider": 5 * _M} == sampling.settled
        assert (0, (6, 4)) == (sampling.untold_credit, sampling.responses)

    def test_where_all_is_measured_no_error_is_told(self):
        """A stratum without pending responses has none, and adds to no other's."""
        whole = Stratum()
        for bank in (1, 2):
            whole.measure(3 * _M, [("bank", bank * _M)])
        assert {} == standard_errors({StratumKey("law", "ab" * 32, "1"): whole}, 6)

    def test_strata_are_added_once(self):
        """As they are, unless they are taken out."""
        one, other = Stratum(pending=1, pending_credit=5), Stratum(pending=2, pending_credit=7)
        one.add(other)
        assert (3, 12) == (one.pending, one.pending_credit)

    def test_an_error_is_of_the_tokens_that_there_are(self):
        """Of two tokens it is half of what it is of one; of none, as of one."""
        stratum = Stratum(pending=1, pending_credit=3 * _M)
        for bank in (1, 2):
            stratum.measure(3 * _M, [("bank", bank * _M)])
        strata = {StratumKey("law", "ab" * 32, "0.5"): stratum}
        none, one, two = (Fraction(standard_errors(strata, tokens)["bank"]) for tokens in (0, 1, 2))

        assert none == one > 0
        assert abs(one - 2 * two) <= Fraction(2, 10**12)

    @pytest.mark.parametrize(
        ("square", "root"),
        [
            (Fraction(0), NO_ERROR),
            (Fraction(4), "2.000000000000"),
            (Fraction(2), "1.414213562374"),
            (Fraction(1, 10**24), "0.000000000001"),
            (Fraction(1, 10**30), "0.000000000001"),
            (Fraction(1, 9), "0.333333333334"),
        ],
    )
    def test_a_root_is_rounded_up_and_exact_where_it_can_be(self, square, root):
        """An error is never told smaller than it is."""
        assert root == _root_text(square)


class TestRounding:
    """Units that are left after everybody had its whole ones."""

    def test_nobody_is_rounded_up_by_standing_at_nothing(self):
        """Neither who is entitled to whole units, nor whose residue eats its fraction: the commons has what is left."""
        half = UNIT // 2
        entitlements = {"bank": UNIT, "clinic": UNIT + half, COMMONS: half}
        assert {"bank": 1, "clinic": 1, COMMONS: 1} == whole_units(entitlements, {"clinic": -half, COMMONS: -UNIT}, "p")

    def test_a_single_trillionth_is_enough(self):
        """Where nobody else has one."""
        entitlements = {"bank": UNIT + 1, "clinic": UNIT - 1, COMMONS: 0}
        for salt in map(str, range(20)):
            assert {"bank": 2, "clinic": 0, COMMONS: 0} == whole_units(entitlements, {"clinic": 1 - UNIT}, salt)

    def test_who_is_owed_a_whole_unit_gets_it_once(self):
        """And the next one goes to the largest of the others."""
        half = UNIT // 2
        entitlements = {"bank": half, "clinic": half + 2, "rider": half - 1, COMMONS: half - 1}
        assert {"bank": 1, "clinic": 1, "rider": 0, COMMONS: 0} == whole_units(entitlements, {"bank": half}, "p")


class TestPayouts:
    """One line, from gross to payout."""

    def test_who_is_not_on_hold_and_recovers_nothing_is_paid_its_gross(self):
        """These two go without saying."""
        paid = pay_client(Line("bank", 1, 0, 0, Fraction(1), 0, 7), Balance(), 0, ordinal=1, policy=EUR)
        assert (7, 0, 0) == (paid.payout, paid.held, paid.recovered)

    def test_holdbacks_of_one_period_are_kept_as_one(self):
        """What a debt left of them is summed."""
        opening = Balance(holdbacks=((4, 5), (4, 7)))
        paid = pay_client(Line("bank", 0, 0, 0, Fraction(0), 0, 0), opening, 3, ordinal=2, policy=EUR)
        assert ((4, 9),) == paid.holdbacks

    @pytest.mark.parametrize(
        ("credit", "gross", "expected"), [(1, 1, 1), (10, 1, 1), (1, 100, 100), (0, 100, 0), (10, -5, 0)]
    )
    def test_the_first_rule_takes_back_what_was_paid_and_no_more(self, credit, gross, expected):
        """Whether a single unit was paid, for a single micro-credit, for none, or less than nothing."""
        assert expected == clawback(Line("bank", credit, 0, 0, Fraction(1), 0, gross), 10)

    def test_a_single_micro_credit_has_its_part_of_what_is_recovered(self):
        """Under `distribute`, by credit among those who gave nothing back."""
        policy = Policy(currency="EUR", pool=100, commons="distribute")
        credit = PeriodCredit((0, 9), 1, {"bank": 1, "rider": 0}, clawbacks={"rider": 40})
        opening = Opening(Purse({"rider": Balance(carry=40)}))
        lines = {line.account: line for line in settle("p", 2, credit, policy, opening).lines}

        assert (40, 140, 0) == (lines["bank"].recovered, lines["bank"].payout, lines[COMMONS].recovered)

    def test_by_the_first_rule_the_commons_had_what_was_recovered(self):
        """Also where it distributes; and what is carried on was in one currency, without fractions."""
        policy = Policy(currency="EUR", pool=100, commons="distribute")
        credit = PeriodCredit((0, 9), 1, {"bank": 1}, clawbacks={"rider": 40})
        opening = Opening(Purse({"rider": Balance(carry=40)}))
        settlement = settle("p", 2, credit, policy, opening, rule=FIRST_RULE)
        lines = {line.account: line for line in settlement.lines}

        assert (0, 40) == (lines["bank"].recovered, lines[COMMONS].recovered)
        assert Opening(Purse(settlement.next_balances)) == settlement.opening(policy, FIRST_RULE)
        assert settlement == Settlement.from_document(settlement.to_document())


class TestBounds:
    """The last value that is taken, and the first that is not; and what is said of that one."""

    def test_the_largest_window_and_the_most_tokens(self):
        """Are those that JSON keeps exact."""
        assert LARGEST == PeriodCredit((0, LARGEST), LARGEST, {}).tokens == -PeriodCredit((0, 0), -LARGEST, {}).tokens
        for window, tokens in (((0, LARGEST + 1), 1), ((0, 1), LARGEST + 1)):
            with pytest.raises(CreditError):
                PeriodCredit(window, tokens, {})

    def test_a_clawback_that_is_no_number_is_named(self):
        """As one of an account that is none."""
        with pytest.raises(CreditError, match=r"^claw-back of 'bank' must be an integer, not 0\.5$"):
            PeriodCredit((0, 1), 1, {}, clawbacks={"bank": 0.5})

    def test_the_fee_of_the_largest_pool_is_exact(self):
        """To the trillionth, of which what is rounded down is carried; unless it is settled by the first rule."""
        policy = Policy(currency="EUR", pool=LARGEST, fee_percent="33.333333")
        allocation = allocate("p", PeriodCredit((0, 1), 1, {"bank": 1}), policy)
        exact = LARGEST * Fraction(33_333_333, 100_000_000)

        assert exact == allocation.fee + Fraction(allocation.fee_fraction, UNIT)
        assert allocation.fee_fraction > 0

    @pytest.mark.parametrize("ordinal", [0, LARGEST])
    def test_the_first_and_the_last_period(self, ordinal):
        """Have a number that JSON keeps exact."""
        assert ordinal == settle("p", ordinal, PeriodCredit((0, 9), 1, {}), EUR).ordinal

    def test_one_more_is_refused(self):
        """By name."""
        words = f"^ordinal of period 'p' must be an integer from 0 to {LARGEST}, not {LARGEST + 1}$"
        with pytest.raises(CreditError, match=words):
            settle("p", LARGEST + 1, PeriodCredit((0, 9), 1, {}), EUR)

    @pytest.mark.parametrize(
        ("purse", "words"),
        [
            (Purse(pool_fraction=UNIT), f"fraction of the pool must be trillionths of one minor unit, not {UNIT}"),
            (Purse(fee_fraction=-1), "fraction of the fee must be trillionths of one minor unit, not -1"),
            (Purse(fee_fraction=0.5), "fraction of the fee must be trillionths of one minor unit, not 0.5"),
            (
                Purse({COMMONS: Balance(holdbacks=((1, 1),))}),
                "balance of the commons must have nothing held and no holdbacks, not .*",
            ),
            (
                Purse({COMMONS: Balance(clawback=1)}),
                "balance of the commons must have nothing held and no holdbacks, not .*",
            ),
            (
                Purse({"pending": Balance(carry=1)}),
                "carried balance of 1 is pending; attribute it before settling",
            ),
        ],
    )
    def test_what_no_settlement_carried_is_refused(self, purse, words):
        """In the same words wherever it comes from."""
        with pytest.raises(CreditError, match=f"^{words}$"):
            settle("p", 1, PeriodCredit((0, 9), 1, {}), EUR, Opening(purse))

    def test_a_holdback_of_nothing_may_be_carried(self):
        """As a holdback that was used up to its end."""
        opening = Opening(Purse({"bank": Balance(holdbacks=((5, 0),))}))
        assert 0 == settle("p", 2, PeriodCredit((0, 9), 1, {"bank": 0, COMMONS: 1}), EUR, opening).lines[0].payout

    def test_the_policy_s_own_currency_cannot_stand(self):
        """It is what is settled."""
        words = "^what stands in EUR is settled by this policy, and cannot stand as well$"
        with pytest.raises(CreditError, match=words):
            settle("p", 1, PeriodCredit((0, 9), 1, {}), EUR, Opening(standing={Currency("EUR", 2): Purse()}))

    def test_a_hold_on_the_commons_is_refused(self):
        """Whole sentence."""
        with pytest.raises(CreditError, match=r"^the commons cannot be on hold; a hold is on a client$"):
            settle("p", 1, PeriodCredit((0, 9), 1, {}), EUR, held_clients=frozenset({COMMONS}))

    def test_a_holdback_that_json_does_not_keep_is_named(self):
        """On the line as in the purse."""
        with pytest.raises(
            CreditError, match=f"^a holdback of 'bank' must be an integer of minor units up to {LARGEST}"
        ):
            Line("bank", 0, 0, 0, Fraction(0), 0, 0, holdbacks=((1, LARGEST + 1),))

    @pytest.mark.parametrize(("formula", "value"), [("-a", -2), ("-a + b", 1), ("a - -b", 5)])
    def test_a_formula_may_turn_a_sign(self, formula, value):
        """As that of what is owed."""
        assert value == evaluate(formula, {"a": 2, "b": 3})


class TestExplanations:
    """What stands in an explanation follows from the settlement, or is refused."""

    POLICY = Policy.from_mapping(
        {"currency": "EUR", "pool": 1001, "fee_percent": "2.5", "holdback_percent": 10, "minimum_payout": 900}
    )
    OPENING = Opening(Purse({"rider": Balance(holdbacks=((3, 50),)), "clinic": Balance(held=9)}))
    CREDIT = PeriodCredit((0, 9), 3, {"bank": 6, "clinic": 3, "rider": 3}, clawbacks={"rider": 400})

    def settlement(self):
        """With a client that is paid, one on hold, one whose debt takes its holdbacks, and what is too little."""
        return settle("p", 1, self.CREDIT, self.POLICY, self.OPENING, frozenset({"clinic"}))

    def explained(self, settlement, client):
        """The amounts of a line by their names."""
        steps = explain_line(settlement, self.OPENING, client, {}, 0)
        return {step.name: step.amount for step in steps}

    @pytest.mark.parametrize("client", ["bank", "clinic", "rider"])
    @pytest.mark.parametrize(
        "field",
        [
            "credit",
            "gross",
            "residue",
            "clawback",
            "holdback",
            "drawn_holdback",
            "held",
            "held_total",
            "carried_out",
            "payout",
        ],
    )
    def test_no_figure_of_a_client_may_be_another(self, client, field):
        """Whichever of its line was altered, by one."""
        settlement = self.settlement()
        assert self.explained(settlement, client)
        lines = tuple(
            replace(line, **{field: getattr(line, field) + 1}) if line.account == client else line
            for line in settlement.lines
        )
        with pytest.raises(CreditError, match=f"{client!r} in the settlement of period 'p' does not add up|brings"):
            self.explained(replace(settlement, lines=lines), client)

    def test_no_holdback_may_be_another(self):
        """Of what is kept from now on."""
        settlement = self.settlement()
        lines = tuple(replace(line, holdbacks=((9, 1), *line.holdbacks)) for line in settlement.lines)
        with pytest.raises(CreditError, match="does not add up: kept ="):
            self.explained(replace(settlement, lines=lines), "bank")

    @pytest.mark.parametrize("field", ["fee", "distributable"])
    def test_no_figure_of_the_whole_may_be_another(self, field):
        """Which every account's explanation says."""
        settlement = self.settlement()
        altered = replace(settlement, **{field: getattr(settlement, field) + 1})
        for explain in (lambda: self.explained(altered, "bank"), lambda: explain_commons(altered, self.OPENING)):
            with pytest.raises(CreditError, match=f"does not add up: {field} ="):
                explain()

    def test_a_pool_by_price_may_not_be_another(self):
        """It is price times tokens."""
        policy = Policy(currency="EUR", price_per_million_tokens=5)
        settlement = settle("p", 1, PeriodCredit((0, 9), 10**6, {"bank": 6}), policy)
        with pytest.raises(CreditError, match="does not add up: pool ="):
            explain_line(replace(settlement, pool=6), Opening(), "bank", {}, 0)

    @pytest.mark.parametrize("field", ["residue", "recovered", "carried_out", "payout"])
    def test_no_figure_of_the_commons_may_be_another(self, field):
        """As of a client."""
        settlement = self.settlement()
        lines = tuple(
            replace(line, **{field: getattr(line, field) + 1}) if line.account == COMMONS else line
            for line in settlement.lines
        )
        with pytest.raises(CreditError, match=f"'commons' in the settlement of period 'p' does not add up: {field} ="):
            explain_commons(replace(settlement, lines=lines), self.OPENING)

    def test_a_part_that_is_no_whole_number_of_trillionths_is_told(self):
        """With the share and the whole that it is of."""
        settlement = self.settlement()
        lines = tuple(replace(line, share=Fraction(1, 7 * UNIT)) for line in settlement.lines)
        with pytest.raises(
            CreditError, match=r"^share 1/7000000000000 of 'bank' is no whole number of trillionths of "
        ):
            self.explained(replace(settlement, lines=lines), "bank")

    def test_a_part_that_is_another_is_told(self):
        """Though it is a whole number of them."""
        settlement = self.settlement()
        lines = tuple(replace(line, share=Fraction(0)) for line in settlement.lines)
        with pytest.raises(
            CreditError, match=r"^part of the commons in period 'p' is not its stored 0$|does not add up"
        ):
            explain_commons(replace(settlement, lines=lines), self.OPENING)

    def test_a_trillionth_that_a_division_leaves_is_told_as_such(self):
        """Of three equal clients one has it, and none was cut by a cap."""
        settlement = settle(
            "p", 1, PeriodCredit((0, 9), 3, {"bank": 1, "clinic": 1, "rider": 1}), Policy(currency="EUR", pool=1)
        )
        told = [self.amounts(settlement, client) for client in ("bank", "clinic", "rider")]

        assert [0, 0, 1] == sorted(amounts["part_rest"] for amounts in told)
        assert not any("by_credit" in amounts for amounts in told)

    @pytest.mark.parametrize("rule", [1, 2])
    def test_who_comes_to_its_cap_by_rounding_up_was_not_cut_to_it(self, rule):
        """Half a trillionth below it, by largest remainder: the others are explained by what the rule left to them."""
        left, credit = 9 * UNIT // 10, 10**17  # of one unit, what the first client's cap of 10 % leaves, and its credit

        def credit_for(trillionths):
            return round(Fraction(trillionths) * credit / left)

        small = {f"j{number}": credit_for(10**9 + number * 10**6 + Fraction(35, 100)) for number in range(3)}
        small["edge"] = credit_for(UNIT // 20 - Fraction(1, 2))
        every = {"first": 2 * credit, "most": credit - sum(small.values()), **small}
        policy = Policy.from_mapping(
            {"currency": "EUR", "pool": 1, "commons": "distribute", "caps": {"first": 10, "edge": 5}}
        )
        settlement = settle("p", 1, PeriodCredit((0, 9), UNIT, every), policy, rule=rule)
        told = {client: self.amounts(settlement, client) for client in every}

        assert UNIT // 20 == told["edge"]["part"] == told["edge"]["cap"], "it is on its cap"
        assert {0, 1} == {told[client]["part_rest"] for client in ("most", "j0", "j1", "j2")}

    def amounts(self, settlement, client):
        """Of a settlement that began with nothing."""
        return {step.name: step.amount for step in explain_line(settlement, Opening(), client, {}, 0)}

    @pytest.mark.parametrize(("minimum", "least", "carried"), [(0, 1, 0), (1, 1, 0), (7, 7, 0), (8, 8, 7)])
    def test_exactly_the_minimum_is_paid(self, minimum, least, carried):
        """And of nothing there is no payout, whatever the minimum."""
        policy = Policy(currency="EUR", pool=7, minimum_payout=minimum)
        amounts = self.amounts(settle("p", 1, PeriodCredit((0, 9), 1, {"bank": 1}), policy), "bank")

        assert (least, carried, 7 - carried) == tuple(amounts[name] for name in ("minimum", "carried_out", "payout"))

    def test_what_the_commons_has_of_what_was_pending_is_told(self):
        """A third of the measured credit is its own, so of the pending as well."""
        stratum = Stratum(pending=1, pending_credit=3 * _M)
        for _ in range(2):
            stratum.measure(3 * _M, [("bank", 2 * _M), (COMMONS, 1 * _M)])
        credit = PeriodCredit(
            (0, 9), 9, {"bank": 4 * _M, COMMONS: 2 * _M, PENDING: 3 * _M},
            strata={StratumKey("law", "ab" * 32, "0.5"): stratum},
        )  # fmt: skip
        told = {step.name: step for step in explain_commons(settle("p", 1, credit, EUR), Opening())}

        assert (2 * _M, 1 * _M, 3 * _M) == tuple(told[name].amount for name in ("measured", "settled", "credit"))
        assert "responses that were not measured, in the proportions of those that were" == told["settled"].note

    def test_the_commons_below_zero_is_told_in_both_periods(self):
        """Rounding in favour of clients made it owe a unit, which the next period makes good."""
        carried = {"bank": Balance(residue=6 * UNIT // 10), "clinic": Balance(residue=6 * UNIT // 10)}
        credit = PeriodCredit((0, 1), 1, {"bank": 1, "clinic": 1})
        opening = Opening(Purse(carried))
        short = settle("p", 1, credit, Policy(currency="EUR", pool=1), opening)
        after = short.opening(Policy(currency="EUR", pool=5))
        later = settle("q", 2, PeriodCredit((0, 1), 1, {COMMONS: 1}), Policy(currency="EUR", pool=5), after)
        first = {step.name: step for step in explain_commons(short, opening)}
        second = {step.name: step for step in explain_commons(later, after)}

        assert (-1, "owed from now on") == (first["carried_out"].amount, first["carried_out"].note)
        assert (-1, "below zero it is owed") == (second["carried_in"].amount, second["carried_in"].note)
        assert (4, "") == (second["payout"].amount, second["carried_out"].note)


class TestDocuments:
    """Settlements and policies as they are stored."""

    @pytest.mark.parametrize("rule", [1, 3, "2", 2.0, True, None])
    def test_another_rule_is_not_read_for_this_one(self, rule):
        """It is named."""
        document = settle("p", 1, PeriodCredit((0, 9), 1, {"bank": 1}), EUR).to_document()
        with pytest.raises(CreditError, match=r"^not a settlement document: .*rule .* is not known"):
            Settlement.from_document({**document, "rule": rule})

    def test_what_is_spelt_otherwise_is_told_in_a_sentence(self):
        """It is no other document of ours."""
        document = settle("p", 1, PeriodCredit((0, 9), 1, {"bank": 1}), EUR).to_document()
        words = r"^not a settlement document: a value is not spelt as settlements spell it$"
        with pytest.raises(CreditError, match=words):
            Settlement.from_document({**document, "fee": 0.0})

    def test_a_policy_that_a_period_was_settled_by_is_read_whatever_the_rules_are_now(self):
        """Larger than is taken today, and of a currency that is none; given anew it is refused."""
        settlement = settle("p", 1, PeriodCredit((0, 9), 1, {"bank": 1}), EUR)
        document = settlement.to_document()
        for change in ({"dispute_days": 100_000}, {"currency": "QQQ"}):
            policy = {**document["policy"], **change}
            stored = Settlement.from_document({**document, "policy": policy}).policy

            assert change.items() <= stored.model_dump().items()
            with pytest.raises(PolicyError, match=f"^policy: {next(iter(change))}: "):
                Policy.from_mapping(policy)
        with pytest.raises(PolicyError, match=r"^policy of the settlement: pool: "):
            Settlement.from_document({**document, "policy": {**document["policy"], "pool": -1}})

    @pytest.mark.parametrize(("currency", "digits"), [("EUR", 2), ("JPY", 0), ("KWD", 3)])
    def test_the_digits_of_a_currency_go_without_saying(self, currency, digits):
        """As ISO 4217 has them."""
        assert digits == Policy(currency=currency, pool=1).minor_digits

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            (
                {"pool": 1, "fees": {"shop": 1}},
                "fees: is for allocation user_centric; leave it out, or set the allocation",
            ),
            (
                {"allocation": "user_centric"},
                "fees: is missing; allocation user_centric needs the fee of each application key id",
            ),
            (
                {"allocation": "user_centric", "fees": {"shop": 1}, "pool": 1},
                "pool: leave it out; under allocation user_centric the fees make up the pool",
            ),
        ],
    )
    def test_fields_that_do_not_go_together_are_told(self, fields, words):
        """What each allocation is made of."""
        with pytest.raises(PolicyError, match=f"^policy: {words}$"):
            Policy.from_mapping({"currency": "EUR", **fields})

    def test_a_settlement_of_another_window_is_another(self):
        """Its hash is of every field."""
        settlement = settle("p", 1, PeriodCredit((0, 9), 1, {"bank": 1}), EUR)
        assert settlement.sha256 != replace(settlement, window=(0, 8)).sha256
