"""A small local server with the OpenAI chat protocol, which misbehaves as told."""

import json
import time

from local_server import LocalServer, QuietHandler


def says(content, **message):
    """The server's reply that carries `content` as the model's words."""
    message = {"role": "assistant", "content": content, **message}
    return 200, json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def gives(*texts):
    return says(json.dumps({"texts": list(texts)}))


def fails(status, message="no"):
    return status, json.dumps({"error": {"message": message}})


def sends(*pieces, pause=0.0):
    """A reply as the bytes on the wire, from the first line on, with a pause before each piece."""

    def reply(request):
        for piece in pieces:
            time.sleep(pause)
            yield piece

    return reply


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


class Server(LocalServer):
    """Gives `replies` in turn, then always the last one; keeps the requests that it got."""

    def __init__(self):
        super().__init__(Handler)
        self.replies, self.requests, self.keys = [], [], []
        self.url += "/v1"

    @property
    def prompts(self):
        return [request["messages"][0]["content"] for request in self.requests]


class Handler(QuietHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(request)
        self.server.keys.append(self.headers["authorization"])
        replies = self.server.replies
        reply = replies[min(len(self.server.requests), len(replies)) - 1]
        reply = reply(request) if callable(reply) else reply
        if not isinstance(reply, tuple):
            self.wfile.writelines(reply)
            return
        status, body = reply
        self.answer(status, {"content-type": "application/json"}, body.encode())
