"""The pages' pictures: `python -m tests.pictures` runs the demo, asks it for a while, and looks at it.

The console by a real browser, the boards by their own queries to a real Prometheus; nothing is drawn by hand.
"""

import argparse
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.end_to_end.prometheus import prometheus
from tests.pictures.boards import render
from tests.waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
BOARDS = ("contribution", "service")
QUESTION = "Where do the night nurses of Lindenmoor Clinic meet for handover?"
START_S, QUIET_S = 900, 20
UNBOUND_READ = httpx.Timeout(None, connect=10)  # an answer takes as long as it takes


def main() -> None:
    """Make every picture."""
    parser = argparse.ArgumentParser(prog="python -m tests.pictures", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "configs" / "pictures", help="folder of the pictures")
    parser.add_argument("--minutes", type=float, default=4, help="how long the demo is asked for the boards")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, demo(Path(folder)) as told:
        metrics = {"protoken-ledger": told["ledger's metrics"], "protoken-replicas": told["replicas' metrics"]}
        targets = {job: re.sub("https?://|/metrics", "", address) for job, address in metrics.items()}
        rules = [ROOT / "configs" / "prometheus" / name for name in ("recording.yml", "alerts.yml")]
        with prometheus(Path(folder) / "prometheus", targets=targets, rules=rules, every_s=2) as address:
            ask(told, asked.minutes * 60)
            for board in BOARDS:
                file = ROOT / "configs" / "grafana" / "dashboards" / f"protoken-{board}.json"
                for title in render(file, address, asked.out / f"board-{board}.png"):
                    print(f"{board}: no data in {title!r}")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            console(browser, told, asked.out)
            browser.close()
    for file in sorted(asked.out.glob("*.png")):
        with Image.open(file) as picture:
            small = with_fewer_colours(picture, 64 if file.name.startswith("board") else 256)
        small.save(file, optimize=True)
        print(f"{file}: {file.stat().st_size // 1000} kB")


def with_fewer_colours(picture: Image.Image, most: int) -> Image.Image:
    """A picture in its most frequent colours, exactly; others, of the edges of letters, become the nearest of them."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.int32)
    packed = pixels @ np.array([1 << 16, 1 << 8, 1])
    found, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1)
    palette = colours[np.argsort(-counts)[:most]]
    nearest = np.array([np.abs(palette - colour).sum(axis=1).argmin() for colour in colours], dtype=np.uint8)
    small = Image.fromarray(nearest[places].reshape(packed.shape)).convert("P")
    small.putpalette(palette.astype(np.uint8).tobytes())
    return small


@contextmanager
def demo(folder: Path) -> Iterator[dict[str, str]]:
    """What a demo that stays up prints: name -> address or key. Ended by Ctrl-C, as people do."""
    command = [sys.executable, "-u", "-m", "deployment.cli", "demo", "--keep"]
    log = folder / "demo.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)

    def last_words() -> str | None:
        text = log.read_text(errors="replace")
        assert process.poll() is None, f"the demo ended:\n{text}"
        return text if "Ctrl-C ends everything" in text else None

    try:
        text = until(last_words, START_S, lambda: f"the demo, which printed\n{log.read_text(errors='replace')}")
        yield dict(re.findall(r"^(console|\w+ key|ledger's metrics|replicas' metrics) +(\S+)$", text, re.MULTILINE))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)


def ask(told: dict[str, str], seconds: float) -> None:
    """Ask the demo's questions again and again, now more at once and now fewer, and then let it rest a little."""
    lines = (ROOT / "configs" / "demo" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(line)["prompt"] for line in lines]
    headers = {"Authorization": f"Bearer {told['application key']}"}
    end = time.monotonic() + seconds - QUIET_S
    with httpx.Client(base_url=told["console"].removesuffix("/console"), headers=headers, timeout=UNBOUND_READ) as http:
        model = http.get("/v1/models").raise_for_status().json()["data"][0]["id"]

        def one(prompt: str) -> None:
            body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 24}
            http.post("/v1/chat/completions", json=body).raise_for_status()

        for at_once in itertools.cycle((1, 2, 4, 8, 3)):
            if time.monotonic() > end:
                break
            with ThreadPoolExecutor(at_once) as pool:
                list(pool.map(one, (prompts * 2)[at_once : at_once * 3]))
    time.sleep(QUIET_S)


def console(browser: Browser, told: dict[str, str], out: Path) -> None:
    """The console's pages, as an operator and as an application."""
    with signed_in(browser, told, "operator", "light") as page:
        shoot(page, "/console/", out / "console-overview.png")
        shoot(page, "/console/trust", out / "console-trust.png")
        shoot(page, "/console/periods/preview?name=next", out / "console-preview.png")
    with signed_in(browser, told, "operator", "dark") as page:
        shoot(page, "/console/", out / "console-overview-dark.png")
    with signed_in(browser, told, "member", "light", width=390) as page:
        shoot(page, "/console/", out / "console-phone.png")
    with signed_in(browser, told, "application", "light") as page:
        page.goto("/console/playground")
        page.get_by_role("textbox", name="Question").fill(QUESTION)
        page.get_by_role("button", name="Ask").click()
        link = page.locator("main a[href*='/responses/']").first
        link.wait_for(timeout=PATIENCE_S * 1000)
        page.screenshot(path=out / "console-playground.png", full_page=True)
        link.click()
        page.wait_for_load_state()
        page.get_by_role("option").nth(4).hover()
        page.screenshot(path=out / "console-response.png", full_page=True)


@contextmanager
def signed_in(browser: Browser, told: dict[str, str], role: str, scheme: str, width: int = 1180) -> Iterator[Page]:
    """A page of a browser in which a key of this role has signed in."""
    address = told["console"].removesuffix("/console")
    context = browser.new_context(base_url=address, color_scheme=scheme, viewport={"width": width, "height": 760})
    page = context.new_page()
    page.goto("/console/sign-in")
    page.get_by_label("Your key").fill(told[f"{role} key"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile("/console/(?!sign-in)"))
    yield page
    context.close()


def shoot(page: Page, path: str, file: Path) -> None:
    """Open a page and save the whole of it."""
    answer = page.goto(path)
    assert answer is not None and answer.status == 200, f"{path}: {answer and answer.status}"
    page.screenshot(path=file, full_page=True)


if __name__ == "__main__":
    main()
