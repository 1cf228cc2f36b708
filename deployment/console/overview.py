"""`/`: how the consortium stands now. An application's key has no figures to see and goes to the playground."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from deployment.console.figures import TheFigures
from deployment.console.pages import TheViewer, redirect, render

__all__ = ["router"]

router = APIRouter()


@router.get("/")
def overview(request: Request, viewer: TheViewer, figures: TheFigures) -> Response:
    """The open period, who earned what of it, and whether all is well."""
    if viewer.key.role == "application":
        return redirect(request, "/playground")
    reading = figures.now()
    if reading is None:
        return render(request, "waiting.html")
    return render(request, "overview.html", reading=reading)
