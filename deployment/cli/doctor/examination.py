"""Everything that is looked at, in its order: what the rest stands on first."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from deployment.cli.doctor.bundles import look_at_bundles
from deployment.cli.doctor.clock import look_at_clock
from deployment.cli.doctor.findings import Finding, State, finding_of
from deployment.cli.doctor.folders import look_at_folder
from deployment.cli.doctor.ledger import look_at_ledger
from deployment.cli.doctor.ports import look_at_port
from deployment.cli.doctor.secrets import look_at_pepper, look_at_signing_key
from deployment.cli.doctor.surroundings import look_at_engine, look_at_extras, look_at_policy
from deployment.errors import SettingsError, StartError
from deployment.health.ports import addresses_of, refusal
from deployment.settings import Settings, load_settings, pepper_path

_NOWHERE = Path("/nonexistent")  # stands for a bundle that nothing names


def examine(config: Path | None) -> Iterator[Finding]:
    """What is found of everything that the settings name: those of a file, and of the environment.

    Where they name no bundle, everything else is looked at all the same.
    """
    source = str(config) if config else "the environment, and defaults"
    settings, has_bundle = None, True
    try:
        settings = load_settings(config)
        yield Finding("settings", State.OK, source)
    except SettingsError as error:
        yield Finding("settings", State.WRONG, str(error))
        has_bundle = False
    if settings is None:
        try:
            settings = load_settings(config, bundle=_NOWHERE)
        except SettingsError:
            return  # more than the bundle is wrong
    yield from _look_at_all(settings, has_bundle=has_bundle)


def _look_at_all(settings: Settings, *, has_bundle: bool) -> Iterator[Finding]:
    yield finding_of("extras", look_at_extras)
    finding, ledger = look_at_ledger("ledger", settings.ledger, settings.signing_key)
    yield finding
    if settings.replica_ledger is not None:
        yield look_at_ledger("replica_ledger", settings.replica_ledger, settings.signing_key)[0]
    if ledger is not None:
        yield finding_of("clock", partial(look_at_clock, ledger))
    yield finding_of("pepper", partial(look_at_pepper, pepper_path(settings.ledger, settings.pepper_file), ledger))
    yield finding_of("signing_key", partial(look_at_signing_key, settings.signing_key, ledger))
    yield finding_of("spool", partial(look_at_folder, "spool", settings.spool))
    if settings.texts is not None:
        yield finding_of("texts", partial(look_at_folder, "texts", settings.texts))
    yield finding_of("policy", partial(look_at_policy, settings))
    yield from _look_at_ports(settings)
    if has_bundle:
        yield from look_at_bundles(settings, ledger)
        yield finding_of("engine", partial(look_at_engine, settings))


def _look_at_ports(settings: Settings) -> Iterator[Finding]:
    try:
        addresses = addresses_of(settings)
    except StartError as error:
        yield Finding("ports", State.WRONG, str(error))
        return
    is_up = refusal(*addresses["port"]) is not None
    for setting, (host, port) in addresses.items():
        yield finding_of(setting, partial(look_at_port, setting, host, port, is_up=is_up))
