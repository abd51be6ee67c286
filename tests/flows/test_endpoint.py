"""The HTTP endpoint: takes what is signed, once, and nothing else."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flows.endpoint import TOLERANCE_SECONDS, key_of, listening, sign
from flows.events import announced_base, outbox_of
from flows.factory import Factory
from infra.errors import FactoryError
from infra.settings import Settings

SECRET = "a secret of the tests, long enough"


class Receiver:
    """A listening factory, and who posts to it."""

    def __init__(self, factory: Factory) -> None:
        self.factory, self.woken, self.url = factory, threading.Event(), ""
        self._count = 0

    def post(
        self,
        content: object,
        *,
        identity: str = "",
        secret: str = SECRET,
        age: float = 0.0,
        signed: object = None,
        drop: str = "",
    ) -> int:
        """Post JSON, and give the status; `signed` is what the signature is for, if it is not what is sent."""
        self._count += 1
        identity, timestamp = identity or f"request-{self._count}", int(time.time() - age)
        body = json.dumps(content).encode()
        signature = sign(secret, identity, timestamp, body if signed is None else json.dumps(signed).encode())
        headers = {"webhook-id": identity, "webhook-timestamp": str(timestamp), "webhook-signature": signature}
        headers.pop(drop, None)
        return httpx.post(self.url, content=body, headers=headers, timeout=30).status_code


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    made = Settings(home=tmp_path, base=str(tmp_path / "base"), shipped_features=False, trigger_secret=SECRET)
    receiver = Receiver(Factory(made))
    with listening(lambda: Factory(made), "127.0.0.1", 0, receiver.woken.set) as port:
        receiver.url = f"http://127.0.0.1:{port}/"
        yield receiver


def test_a_signed_post_announces_a_base_and_wakes(receiver: Receiver) -> None:
    assert httpx.get(receiver.url + "health").status_code == 200
    assert receiver.post({"base": "hf://org/name@v2"}) == 202
    assert receiver.woken.is_set()
    wanted = announced_base(receiver.factory)
    assert wanted is not None and wanted.source == "hf://org/name@v2"
    assert receiver.post({}) == 202
    assert receiver.post({"base": receiver.factory.settings.base}) == 202


def test_a_replay_is_refused_by_whoever_listens_then(receiver: Receiver) -> None:
    assert receiver.post({}, identity="the-same-id") == 202
    assert receiver.post({}, identity="the-same-id") == 409
    made = receiver.factory.settings
    with listening(lambda: Factory(made), "127.0.0.1", 0, receiver.woken.set) as port:
        receiver.url = f"http://127.0.0.1:{port}/"
        assert receiver.post({}, identity="the-same-id") == 409


def test_a_published_vector_of_standard_webhooks() -> None:
    """That of the specification's reference libraries."""
    secret, identity = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    signature = sign(secret, identity, 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["", "x" * 23, "whsec_MfKQ9r8GKYqrTwjUPD8I", "whsec_no base64, but long enough"])
def test_a_secret_that_is_weak_or_unreadable_is_refused(secret: str) -> None:
    with pytest.raises(FactoryError, match="FACTORY_TRIGGER_SECRET"):
        key_of(secret)


@pytest.mark.parametrize("age", [TOLERANCE_SECONDS + 5, -TOLERANCE_SECONDS - 5])
def test_a_request_of_another_time_is_refused(receiver: Receiver, age: float) -> None:
    assert receiver.post({"base": "hf://org/name"}, age=age) == 401


def test_what_is_not_signed_with_our_secret_changes_nothing(receiver: Receiver) -> None:
    base = {"base": "hf://org/name"}
    assert receiver.post(base, secret="another secret that is long enough") == 401
    assert receiver.post(base, signed={"base": "hf://org/other"}) == 401
    assert receiver.post(base, drop="webhook-signature") == 401
    assert receiver.post(base, drop="webhook-id") == 400
    assert receiver.post(base, drop="webhook-timestamp") == 400
    assert receiver.post(base, identity="../escape") == 400
    assert not receiver.woken.is_set()
    assert (announced_base(receiver.factory), outbox_of(receiver.factory).waiting()) == (None, [])


@pytest.mark.parametrize(
    "content",
    [{"base": "/etc"}, {"base": "ftp://host/x"}, {"base": 1}, {"other": "x"}, [], "x"],
)
def test_a_signed_post_of_something_else_is_refused(receiver: Receiver, content: object) -> None:
    assert receiver.post(content) == 422
    assert announced_base(receiver.factory) is None


def test_a_large_body_is_refused_unread(receiver: Receiver) -> None:
    assert receiver.post({"base": "x" * (1 << 15)}) == 413
    assert httpx.post(receiver.url + "elsewhere", content=b"{}").status_code == 404


def test_nobody_listens_without_a_good_secret(tmp_path: Path) -> None:
    made = Settings(home=tmp_path, trigger_secret="short")
    with (
        pytest.raises(FactoryError, match="FACTORY_TRIGGER_SECRET"),
        listening(lambda: Factory(made), "127.0.0.1", 0, lambda: None),
    ):
        pass
