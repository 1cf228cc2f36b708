"""What a Serve application is made of."""

from collections.abc import Mapping

from ray import serve


def deployment_names(application: serve.Application) -> set[str]:
    """The names of all deployments in it."""
    deployment = application._bound_deployment
    several = [each for args in deployment.init_args if isinstance(args, Mapping) for each in args.values()]
    parts = [each for each in (*deployment.init_args, *several) if isinstance(each, serve.Application)]
    return {deployment.name}.union(*map(deployment_names, parts))
