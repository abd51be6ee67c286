"""The endpoint client against a real HTTP server on the loopback interface."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.inference import endpoint
from adapters.inference.endpoint import EndpointGenerator
from adapters.inference.types import Prompt, Sampling
from infra.errors import FactoryError

Reply = tuple[int, Any]


class Server(ThreadingHTTPServer):
    """Answers each chat completion with what `reply(request, number)` says; keeps requests and headers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.reply: Callable[[dict[str, Any], int], Reply] = echo
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append(request | {"path": self.path})
            server.keys.append(self.headers.get("Authorization"))
            status, body = server.reply(request, len(server.requests))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


def choice(text: str, **extra: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}, "finish_reason": "stop", **extra}


def echo(request: dict[str, Any], number: int) -> Reply:
    user = request["messages"][-1]["content"]
    logprobs = {"content": [{"token": "x", "logprob": -0.5}, {"token": "y", "logprob": -1.5}]}
    return 200, {"choices": [choice(f" {user} {i}\n", logprobs=logprobs) for i in range(request["n"])]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT_SECONDS", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_candidates_in_order_with_their_figures(server: Server) -> None:
    prompts = [Prompt("Be brief.", f"text {i}") for i in range(20)]
    heard: list[int] = []
    generator = EndpointGenerator(server.url, "small", "secret")
    sampling = Sampling(32, temperature=0.7, top_p=0.9, candidates=2, seed=3)
    answers = generator.generate(prompts, sampling, lambda index, _: heard.append(index))
    assert [[a.text for a in row] for row in answers] == [[f"text {i} 0", f"text {i} 1"] for i in range(20)]
    assert (answers[0][0].tokens, answers[0][0].logprob, answers[0][0].finished) == (2, -1.0, True)
    assert sorted(heard) == list(range(20)) and set(server.keys) == {"Bearer secret"}
    request = next(r for r in server.requests if r["messages"][-1]["content"] == "text 4")
    wanted = {"model": "small", "max_tokens": 32, "temperature": 0.7, "top_p": 0.9, "n": 2, "seed": 3}
    assert wanted.items() <= request.items() and request["path"] == "/v1/chat/completions"
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("suffix", ["/", "/v1", "/v1/", "/v1/chat/completions"])
def test_any_spelling_of_the_address(server: Server, suffix: str) -> None:
    EndpointGenerator(server.url + suffix, "m").generate([Prompt("", "a")], Sampling(4))
    assert server.requests[0]["path"] == "/v1/chat/completions" and server.keys == [None]
    assert [m["role"] for m in server.requests[0]["messages"]] == ["user"]


def test_a_server_that_gives_one_candidate_at_a_time_is_asked_again(server: Server) -> None:
    server.reply = lambda request, number: (
        200,
        {"choices": [choice(f"answer {number}", finish_reason="length")], "usage": {"completion_tokens": 7}},
    )
    (answers,) = EndpointGenerator(server.url, "m").generate([Prompt("", "a")], Sampling(4, candidates=3, seed=10))
    assert [a.text for a in answers] == ["answer 1", "answer 2", "answer 3"]
    assert [r["seed"] for r in server.requests] == [10, 11, 12]
    assert (answers[0].tokens, answers[0].logprob, answers[0].finished) == (7, 0.0, False)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(server: Server, status: int) -> None:
    server.reply = lambda request, number: (status, {"error": "busy"}) if number < 4 else echo(request, number)
    (answers,) = EndpointGenerator(server.url, "m").generate([Prompt("", "a")], Sampling(4))
    assert answers[0].text == "a 0" and len(server.requests) == 4


def test_giving_up_says_why(server: Server) -> None:
    server.reply = lambda request, number: (503, {"error": "overloaded"})
    with pytest.raises(FactoryError, match=r"gave up after 6 attempts, .* status 503.*overloaded"):
        EndpointGenerator(server.url, "m", "secret").generate([Prompt("", "a")], Sampling(4))
    assert len(server.requests) == 6


def test_a_refusal_is_not_tried_again(server: Server) -> None:
    server.reply = lambda request, number: (401, {"error": "bad key"})
    with pytest.raises(FactoryError, match=r"status 401.*bad key") as caught:
        EndpointGenerator(server.url, "m", "secret").generate([Prompt("", "a")], Sampling(4))
    assert len(server.requests) == 1 and "secret" not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>no</html>", b"[]", b'{"choices": []}', b'{"choices": [{"text": "old"}]}'])
def test_something_else_than_a_completion_is_told(server: Server, body: bytes) -> None:
    server.reply = lambda request, number: (200, body)
    with pytest.raises(FactoryError, match="not a chat completion"):
        EndpointGenerator(server.url, "m").generate([Prompt("", "a")], Sampling(4))


def test_no_server_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as closed:
        url = closed.url
    with pytest.raises(FactoryError, match=r"gave up after 6 attempts, .*ConnectError"):
        EndpointGenerator(url, "m").generate([Prompt("", "a")], Sampling(4))


def test_an_address_needs_a_scheme() -> None:
    with pytest.raises(FactoryError, match="not the address of a server"):
        EndpointGenerator("localhost:8000", "m")


def test_requests_begin_at_the_pace_that_is_asked_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(endpoint, "time", SimpleNamespace(sleep=waits.append, monotonic=lambda: 100.0))
    generator = EndpointGenerator(server.url, "m", at_once=2, requests_per_minute=30)
    generator.generate([Prompt("", str(n)) for n in range(4)], Sampling(4))
    assert sorted(waits) == [0.0, 2.0, 4.0, 6.0]
