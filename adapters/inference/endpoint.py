"""Text from a server that speaks OpenAI's chat completions (vLLM, llama-server, Ollama and others).

The server batches, so several prompts are under way at once; requests a minute can be bounded. What a server may leave
out is asked for and done without: candidates (`n`) are asked for again until there are enough, and without
log-probabilities an answer's `logprob` is 0.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx

from adapters.inference.types import Answer, OnAnswers, Prompt, Sampling
from infra.errors import FactoryError, Unavailable

_ATTEMPTS = 6
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
_TIMEOUT = httpx.Timeout(300.0, connect=10.0)


class EndpointGenerator:
    """A `TextGenerator` over `url` (the server's root, or the root ending in /v1) and one of its models.

    `at_once` requests are under way at a time, and no more than `requests_per_minute` begin.

    Raises:
        FactoryError: `url` is not an http or https address.
    """

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None = None,
        at_once: int = 8,
        requests_per_minute: float | None = None,
    ) -> None:
        root = url.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1")
        if not root.startswith(("http://", "https://")):
            raise FactoryError(f"{url}: not the address of a server; write it as http://host:port")
        self._url = f"{root}/v1/chat/completions"
        self._model = model
        self._at_once = at_once
        self._pace = _Pace(60 / requests_per_minute if requests_per_minute else 0.0)
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, on_answers: OnAnswers | None = None
    ) -> list[list[Answer]]:
        """`sampling.candidates` answers for each prompt, in order; `on_answers` is called as each prompt is done.

        Raises:
            FactoryError: the server cannot be reached, refuses, or answers something else than chat completions.
        """
        answers: list[list[Answer]] = [[] for _ in prompts]
        with (
            httpx.Client(headers=self._headers, timeout=_TIMEOUT) as client,
            ThreadPoolExecutor(self._at_once) as pool,
        ):
            waiting = {pool.submit(self._answer, client, prompt, sampling): i for i, prompt in enumerate(prompts)}
            try:
                for future in as_completed(waiting):
                    index = waiting[future]
                    answers[index] = future.result()
                    if on_answers is not None:
                        on_answers(index, answers[index])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return answers

    def _answer(self, client: httpx.Client, prompt: Prompt, sampling: Sampling) -> list[Answer]:
        """All candidates of one prompt, however many the server gives at a time."""
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        messages.append({"role": "user", "content": prompt.user})
        answers: list[Answer] = []
        while len(answers) < sampling.candidates:
            request = {
                "model": self._model,
                "messages": messages,
                "max_tokens": sampling.max_new_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "n": sampling.candidates - len(answers),
                "seed": sampling.seed + len(answers),
                "logprobs": True,
            }
            answers += self._read(self._post(client, request))
        return answers[: sampling.candidates]

    def _post(self, client: httpx.Client, request: dict[str, Any]) -> httpx.Response:
        """The server's answer; what may pass (connection, 429, 5xx) is tried again, later and later."""
        wait = _FIRST_WAIT_SECONDS
        for attempt in range(_ATTEMPTS):
            asked = 0.0
            self._pace.wait()
            try:
                response = client.post(self._url, json=request)
                if response.is_success:
                    return response
                problem = f"status {response.status_code}, {_excerpt(response)}"
                if response.status_code != 429 and response.status_code < 500:
                    raise FactoryError(f"{self._url}: {problem}; check the address, the model's name and the key")
                header = response.headers.get("Retry-After", "")
                asked = float(header) if header.isdigit() else 0.0
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
            if attempt + 1 < _ATTEMPTS:
                time.sleep(min(max(wait, asked), _LONGEST_WAIT_SECONDS))
                wait *= 2
        raise Unavailable(f"{self._url}: gave up after {_ATTEMPTS} attempts, the last with {problem}")

    def _read(self, response: httpx.Response) -> list[Answer]:
        try:
            body = response.json()
            choices = body["choices"]
            share = int((body.get("usage") or {}).get("completion_tokens") or 0) // max(len(choices), 1)
            answers = [_choice(choice, share) for choice in choices]
        except (ValueError, KeyError, TypeError, AttributeError):
            answers = []
        if not answers:
            raise FactoryError(f"{self._url}: not a chat completion: {_excerpt(response)}")
        return answers


class _Pace:
    """Lets threads begin something at least `seconds` apart."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when it is the caller's turn."""
        if not self._seconds:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._seconds
        time.sleep(turn - now)


def _choice(choice: dict[str, Any], tokens: int) -> Answer:
    """One candidate; `tokens` is its length where the server sends no log-probabilities to count."""
    logprobs = [float(token["logprob"]) for token in (choice.get("logprobs") or {}).get("content") or []]
    mean = sum(logprobs) / len(logprobs) if logprobs else 0.0
    text = (choice["message"]["content"] or "").strip()
    return Answer(text, len(logprobs) or tokens, mean, choice.get("finish_reason") == "stop")


def _excerpt(response: httpx.Response) -> str:
    return " ".join(response.text.split())[:200] or "an empty body"
