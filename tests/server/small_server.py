"""A server of OpenAI's API as small as can be, for the bench to start: `small_server.py PORT FOLDER [options]`. A token
is a word, and a template of ten. It writes PORT.pid into FOLDER, and PORT.asked when it has answered."""

import argparse
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("folder", type=Path)
parser.add_argument("--loading", type=int, default=0, help="questions that are answered with 503 first")
parser.add_argument("--broken", action="store_true", help="answer every question with 500")
parser.add_argument("--cut", type=int, default=1 << 30, help="tokens of a prompt that are kept")
parser.add_argument("--dies-at", type=int, default=1 << 30, help="tokens of a prompt that are too much")
parser.add_argument("--stubborn", action="store_true", help="take no notice of SIGTERM")
options = parser.parse_args()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.say(200, {"data": [{"id": "small"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = 10 + sum(len(message["content"].split()) for message in body["messages"])
        if prompt > options.dies_at:
            sys.stderr.write("out of memory, alas\n")
            os._exit(9)
        if options.loading or options.broken:
            options.loading -= 1
            self.say(500 if options.broken else 503, {"error": "not now"})
            return
        count = body["max_tokens"]
        usage = {"prompt_tokens": min(prompt, options.cut), "completion_tokens": count}
        if body.get("stream"):
            chunks = [{"choices": [{"delta": {"content": "word "}}]}] * count
            end = {"choices": [{"delta": {}, "finish_reason": "length"}]}
            events = [f"data: {json.dumps(chunk)}\n\n" for chunk in [*chunks, end, {"choices": [], "usage": usage}]]
            self.send("".join([*events, "data: [DONE]\n\n"]))
        else:
            self.say(200, {"choices": [], "usage": usage})
        (options.folder / f"{options.port}.asked").touch()

    def say(self, status: int, body: object) -> None:
        self.send(json.dumps(body), status)

    def send(self, text: str, status: int = 200) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())


if options.stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
half = options.folder / f"{options.port}.half"
half.write_text(str(os.getpid()))
half.rename(half.with_suffix(".pid"))  # whoever sees it reads all of it
ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()
