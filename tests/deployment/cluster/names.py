"""What a Serve application is made of."""

from ray import serve


def deployment_names(application: serve.Application) -> set[str]:
    """The names of all deployments in it."""
    deployment = application._bound_deployment
    parts = [each for each in deployment.init_args if isinstance(each, serve.Application)]
    return {deployment.name}.union(*map(deployment_names, parts))
