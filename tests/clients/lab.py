"""A JupyterLab of its own, and what a person does in it: open a notebook, run all cells, look."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def jupyterlab(folder: Path, *, dark: bool = False):
    """Serve a copy of `notebooks/` and `data/` from a folder, with settings of its own; gives address and folder."""
    work, home = folder / "work", folder / "home"
    shutil.copytree(ROOT / "notebooks", work / "notebooks")
    (work / "data").symlink_to(ROOT / "data")
    if (ROOT.parent / "shared").is_dir():  # real series, which a notebook shows where they are
        (work / "shared").symlink_to(ROOT.parent / "shared")
    for path, content in {
        "labconfig/page_config.json": {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}},
        # every cell is drawn, seen or not, so that a tall window shows the whole notebook
        "settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
        "settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings": {
            "theme": "JupyterLab Dark" if dark else "JupyterLab Light"
        },
    }.items():
        place = home / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(content))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home), "JUPYTER_DATA_DIR": str(home / "data"), "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"), "JUPYTER_PLATFORM_DIRS": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
        "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True", "--LabApp.news_url=",
        "--ServerApp.port_retries=0",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", f"--ServerApp.root_dir={work}",
    ]  # fmt: skip
    with open(folder / "jupyterlab.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=work)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(f"{address}/api/status", process)
            yield address, work
        finally:
            process.terminate()
            process.wait(20)


def _wait(address, process):
    for _ in range(240):
        if process.poll() is not None:
            raise RuntimeError(f"JupyterLab ended with {process.returncode}")
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.25)
    raise RuntimeError("JupyterLab did not answer within a minute")


def open_notebook(page, address, path):
    page.goto(f"{address}/lab/tree/{path}?reset")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for()


def run_all(page, *, timeout_s=300) -> float:
    """Run every cell as a hand would; seconds until the last has run."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    start = time.perf_counter()
    page.wait_for_function(
        """() => {
          const all = [...document.querySelectorAll(".jp-CodeCell")]
          const full = all.filter((c) => c.querySelector(".cm-content").innerText.trim())
          return full.every((c) => /^\\[\\d+\\]:$/.test(c.querySelector(".jp-InputPrompt").innerText.trim()))
        }""",
        timeout=1000 * timeout_s, polling=200,
    )  # fmt: skip
    page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for()
    return time.perf_counter() - start


def outputs(page):
    """What stands under each code cell: text, whether an error, what was said on stderr, number of pictures."""
    return page.evaluate(
        """() => [...document.querySelectorAll(".jp-CodeCell")].map((c) => ({
          text: (c.querySelector(".jp-OutputArea") || {innerText: ""}).innerText,
          error: !!c.querySelector("[data-mime-type='application/vnd.jupyter.error']"),
          complaint: [...c.querySelectorAll("[data-mime-type='application/vnd.jupyter.stderr']")]
            .map((e) => e.innerText).join(""),
          pictures: c.querySelectorAll(".jp-OutputArea img").length,
        }))"""
    )


def close(address):
    """End all kernels: what one notebook holds is not to slow the next."""
    with urllib.request.urlopen(f"{address}/api/sessions") as answer:
        sessions = json.load(answer)
    for session in sessions:
        urllib.request.urlopen(urllib.request.Request(f"{address}/api/sessions/{session['id']}", method="DELETE"))


def shoot(page, path: Path, *, high=1400):
    """The whole notebook in pieces that can be looked at: path-1.png, path-2.png, ... Gives their names."""
    size = page.viewport_size
    page.set_viewport_size({"width": size["width"], "height": high})
    page.wait_for_timeout(500)
    paper, names, top = page.locator(".jp-WindowedPanel-outer").first, [], 0
    while True:
        paper.evaluate("(it, top) => it.scrollTo(0, top)", top)
        page.wait_for_timeout(500)
        names.append(f"{path}-{len(names) + 1}.png")
        paper.screenshot(path=names[-1])
        whole, seen = paper.evaluate("(it) => [it.scrollHeight, it.clientHeight]")
        top += seen - 40
        if top >= whole - 60:
            page.set_viewport_size(size)
            return names
