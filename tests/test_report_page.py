"""The page in a real browser: no overflow, no broken picture, no error."""

import json
import re
import shutil
import subprocess

import pytest
from test_report_collect import make_run

from palinode.report import build

pytestmark = pytest.mark.slow  # all in all; `make check` leaves it out

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PROBE = """<script>
addEventListener('error', e => document.title += ' ERROR ' + e.message);
addEventListener('load', () => { const root = document.documentElement;
  document.body.dataset.overflow = root.scrollWidth - root.clientWidth;
  document.body.dataset.width = root.clientWidth;
  document.body.dataset.broken = [...document.images].filter(i => !i.naturalWidth).length; });
</script>"""
# A frame, because headless windows have a least width of about 500 px.
FRAME = (
    "<iframe src=page.html style='width:{width}px;height:900px;border:0'></iframe><script>"
    "addEventListener('load', () => {{ const d = frames[0].document;"
    "document.title = JSON.stringify({{...d.body.dataset, title: d.title}}); }});</script>"
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
    "--window-size=1400,1000",
)


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    build.build(make_run(root), root)
    return (root / "report/index.html").read_text()


@pytest.mark.parametrize("width", [1280, 390])
def test_page_in_a_browser(html, tmp_path, width):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no chromium binary on PATH")
    (tmp_path / "page.html").write_text(html.replace("<head>", "<head>" + PROBE))
    framed = tmp_path / "frame.html"
    framed.write_text(FRAME.format(width=width))
    command = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", framed.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stderr
    page = json.loads(title[1])
    assert page["overflow"] == "0" and page["broken"] == "0" and int(page["width"]) >= width - 20
    assert "ERROR" not in page["title"] and "CONSOLE" not in done.stderr
