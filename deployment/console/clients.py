"""`/clients`: what each client earned; for a member itself alone."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from deployment.console.figures import TheFigures
from deployment.console.pages import TheViewer, render

__all__ = ["router"]

router = APIRouter()


@router.get("/clients")
def clients(request: Request, viewer: TheViewer, figures: TheFigures) -> Response:
    """Every client that the viewer may see, with its credit."""
    reading = figures.now()
    if reading is None:
        return render(request, "waiting.html")
    names = {client: name for client, name in reading.names.items() if viewer.visible in (None, client)}
    return render(request, "clients.html", names=names)
