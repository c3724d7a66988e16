"""A small application: it tells which digit the model sees, in words. DIGITS_URL is set by the agent."""

import json
import os
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


class Reader(BaseHTTPRequestHandler):
    """GET /ready; POST / with an inference request answers {"digit": "seven"}."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(200, {"ready": True})

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 1 << 20))
        url = os.environ["DIGITS_URL"] + "/v2/models/digits/infer"
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=5) as response:
                label = json.load(response)["outputs"][0]["data"][0]
        except (OSError, ValueError, LookupError) as error:
            self.answer(502, {"error": str(error)})
            return
        self.answer(200, {"digit": WORDS[label], "reader": "1.0.0"})

    def answer(self, status: int, value: dict) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing per request."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Reader).serve_forever()
