"""The page in a real browser: it loads nothing, runs nothing, complains about nothing, and fits a phone."""

import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import sample_reports

from reports.page import render_page

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium here to open the page with"),
]
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


class Opened:
    """What came of opening a page: its DOM, what the console said, and every request that reached the network."""

    def __init__(self, page, folder, *flags):
        requests = self.requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                requests.append(f"{self.headers.get('Host', '')}{self.path}")
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                if self.path == "/page":
                    self.wfile.write(page.encode())

            def log_message(self, *_):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            port = server.server_address[1]
            done = subprocess.run(
                [
                    BROWSER,
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--no-first-run",
                    "--disable-background-networking",
                    "--disable-component-update",
                    "--disable-extensions",
                    "--hide-scrollbars",
                    f"--user-data-dir={folder}",
                    # Whatever host the page asks for, the request arrives here and is counted.
                    f"--host-resolver-rules=MAP * 127.0.0.1:{port}",
                    "--enable-logging=stderr",
                    *flags,
                    "http://report.example/page",
                ],
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
                encoding="utf-8",
            )
            server.shutdown()
        self.dom = done.stdout
        self.console = re.findall(r"CONSOLE[^\]]*\] (.*)", done.stderr)

    @property
    def asked_for(self):
        """Requests of the page; the browser's own updater is not ours to judge."""
        return [request for request in self.requests if not re.match(r"[\w.-]*(google|gvt1)[\w.-]*\.", request)]


HOSTILE = '"><script>console.log("ran")</script><img src="http://spy.example/x.png" onerror="console.log(1)">'


@pytest.fixture(scope="module")
def hostile_page():
    return render_page(sample_reports.hostile(HOSTILE))


def test_a_hostile_report_loads_nothing_and_runs_nothing(hostile_page, tmp_path):
    opened = Opened(hostile_page, tmp_path, "--dump-dom")
    assert opened.asked_for == ["report.example/page"]
    assert opened.console == []
    assert "<script>" not in opened.dom
    assert opened.dom.count("<svg") == hostile_page.count("<svg")


def test_the_measurement_itself_would_notice(tmp_path):
    page = "<!doctype html><link rel=icon href=data:,><body><script>console.log('ran')</script>"
    page += "<img src='http://spy.example/x.png'>"
    opened = Opened(page, tmp_path, "--dump-dom")
    assert "spy.example/x.png" in opened.asked_for
    assert any("ran" in line for line in opened.console)


def test_the_policy_alone_would_stop_what_escaping_missed(hostile_page, tmp_path):
    broken = hostile_page.replace(
        "</main>", '<script>console.log("ran")</script><img src="http://spy.example/y"></main>'
    )
    opened = Opened(broken, tmp_path, "--dump-dom")
    assert opened.asked_for == ["report.example/page"]
    assert not any(line.startswith('"ran"') for line in opened.console)
    assert any("Content Security Policy" in line for line in opened.console)


def test_a_page_full_of_long_names_fits_a_phone(tmp_path):
    page = POLICY.sub("", render_page(sample_reports.hostile("x" * 150)))
    probe = "<script>document.title = `${document.documentElement.scrollWidth}/${window.innerWidth}`</script>"
    opened = Opened(page.replace("</body>", f"{probe}</body>"), tmp_path, "--dump-dom", "--window-size=390,844")
    width, window = map(int, re.search(r"<title>(\d+)/(\d+)</title>", opened.dom).groups())
    assert width <= window <= 500


def test_it_prints(tmp_path):
    target = tmp_path / "page.pdf"
    Opened(render_page(sample_reports.rank_one()), tmp_path / "profile", f"--print-to-pdf={target}")
    assert target.read_bytes().startswith(b"%PDF")
