"""Whether what a manifest says of recorded rounds agrees with what is in its bundle: numbers against numbers.

What the parts of a sum are is known by their hashes; here is checked that they can make the sum. Does not read files.
"""

from collections.abc import Iterator, Mapping, Sequence

from attribution.bundle.manifest import Manifest, RoundEntry

_ROUNDING = 1e-6  # of doubles, and of norms written down
_STORED = 1e-3  # of factors and weights stored in single precision, beside what the updates changed


def round_problems(
    manifest: Manifest, residual_norm: float, client_norms: Mapping[str, float], last_norms: Mapping[str, float]
) -> tuple[str, ...]:
    """A sentence for each claim of a manifest with rounds that does not hold.

    The norms are those recomputed: of the residual, of each client's D_i, and of its update of the last round.
    """
    assert manifest.rounds, "there are rounds to be checked"
    problems = [problem for each in manifest.rounds for problem in _weight_problems(each)]
    problems += _last_round_problems(manifest, manifest.rounds[-1], last_norms)
    problems += _residual_problems(manifest, manifest.rounds, residual_norm, sum(client_norms.values()))
    problems += _client_problems(manifest.rounds, client_norms)
    return tuple(problems)


def _client_problems(rounds: tuple[RoundEntry, ...], norms: Mapping[str, float]) -> Iterator[str]:
    for client, norm in norms.items():
        sent = [update for each in rounds for update in each.updates if update.client == client]
        least, most = _bounds([update.weight * update.norm for update in sent])
        if norm > most * (1 + _STORED):
            yield f"client {client!r}: its update has norm {norm:.6g}, but what it sent has {most:.6g} at most in all"
        if norm < least - most * _STORED:
            yield f"client {client!r}: its update has norm {norm:.6g}, but what it sent has {least:.6g} at least in all"


def _weight_problems(entry: RoundEntry) -> Iterator[str]:
    if not entry.updates:
        return
    whole, total = (sum(values) for values in zip(*((u.declared, u.weight) for u in entry.updates), strict=True))
    if abs(total - 1) > _ROUNDING:
        yield f"round {entry.round}: the clients' weights sum to {total:.6g}, not to 1; was a client dropped?"
    for update in entry.updates:
        if abs(update.weight - update.declared / whole) > _ROUNDING:
            yield (
                f"round {entry.round}: client {update.client!r} has weight {update.weight:.6g}, but declared"
                f" {update.declared:g} of {whole:g}"
            )


def _last_round_problems(manifest: Manifest, last: RoundEntry, norms: Mapping[str, float]) -> Iterator[str]:
    weights = {update.client: update.weight for update in last.updates}
    for update in last.updates:
        norm = norms.get(update.client)
        if norm is None:
            yield f"client {update.client!r} took part in round {last.round}, but its update of that is not here"
        elif abs(norm - update.norm) > _STORED * update.norm:
            yield (
                f"client {update.client!r}: its update of round {last.round} has norm {norm:.6g}, but the manifest says"
                f" {update.norm:.6g}"
            )
    for client in manifest.clients:
        if client.id in norms and client.id not in weights:
            yield f"client {client.id!r} took no part in round {last.round}, but an update of that is here"
        if abs(client.weight - weights.get(client.id, 0.0)) > _ROUNDING:
            yield (
                f"client {client.id!r} has weight {client.weight:.6g}, but in round {last.round}"
                f" {weights.get(client.id, 0.0):.6g}"
            )


def _residual_problems(
    manifest: Manifest, rounds: tuple[RoundEntry, ...], norm: float, updates_norm: float
) -> Iterator[str]:
    declared, slack = manifest.global_.residual_norm, _ROUNDING * updates_norm
    if abs(norm - declared) > _ROUNDING * declared + slack:
        yield (
            f"global − base − Σ D_i has norm {norm:.6g}, but the manifest says {declared:.6g}: the clients' updates,"
            " with what the server did, do not add up to the global model"
        )
    assert manifest.start_norm is not None, "it goes with rounds"
    least, most = _bounds([manifest.start_norm, *(each.residual_norm for each in rounds)])
    if norm > most * (1 + _STORED) + _STORED * updates_norm:
        yield (
            f"global − base − Σ D_i has norm {norm:.6g}, but what the server did in all rounds has {most:.6g} at most"
        )
    if norm < least - most * _STORED - _STORED * updates_norm:
        yield (
            f"global − base − Σ D_i has norm {norm:.6g}, but what the server did in all rounds has {least:.6g} at least"
        )


def _bounds(norms: Sequence[float]) -> tuple[float, float]:
    """Between which the norm of a sum lies, by those of its parts: along one line, or all against the largest."""
    most = sum(norms)
    return max(2 * max(norms, default=0.0) - most, 0.0), most
