"""What a service needs around it: the extras of the installation, a policy, and an engine of its own."""

from contextlib import closing

from deployment.cli.extras import require_extra
from deployment.settings import Settings
from rewards.settlement.policy_file import load_policy


def look_at_extras() -> str:
    """What is installed.

    Raises:
        MissingExtraError: a part that `protoken serve` needs is not.
    """
    require_extra("serve", "`protoken serve`")
    return "all that `protoken serve` needs is installed"


def look_at_policy(settings: Settings) -> str:
    """The policy by which is settled.

    Raises:
        PolicyError: it cannot be read, or is none.
    """
    if settings.policy is None:
        return "none is set: the API and the console preview and close nothing"
    policy = load_policy(settings.policy)
    return f"{settings.policy} settles in {policy.currency}"


def look_at_engine(settings: Settings) -> str:
    """Who makes the tokens; whether with the bundle's weights, a running service finds out.

    Raises:
        StartError: the file of its key cannot be read.
        PartLostError: it does not answer, or does not serve the model.
        BundleError: the bundle, by whose name it would be asked, cannot be read.
    """
    engine = settings.engine
    if engine.url is None:
        return "embedded: our own decoder"
    require_extra("serve", "an engine of its own")
    from attribution.bundle.bundle import manifest_of  # noqa: PLC0415 - what these need may not be there
    from deployment.replica.engines.connection import Connection, api_key_of  # noqa: PLC0415
    from deployment.replica.engines.engine_status import require_served  # noqa: PLC0415

    name = engine.model or manifest_of(settings.bundle).consortium
    with closing(Connection(engine.url, api_key_of(engine))) as connection:
        require_served(connection, name)
    return f"{engine.url} serves {name}"
