"""Whatever a user is shown holds no password of a URL."""

import pytest

from infra.errors import CheckFailed, FactoryError, masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://mlflow:s3cr3t@127.0.0.1:1/api: refused", "http://mlflow:***@127.0.0.1:1/api: refused"),
        ("token http://t0ken@host, then https://a:b@host.", "token http://***@host, then https://a:***@host."),
        ("postgresql+psycopg://ann:p@ss/w?rd@host/db", "postgresql+psycopg://ann:***@host/db"),
        (
            "postgresql://host/db?user=ann&password=pw&sslmode=on",
            "postgresql://host/db?user=ann&password=***&sslmode=on",
        ),
        ("hf://org/name@main, s3://bucket/a@b, ann@host, http://host:80/", None),
    ],
)
def test_passwords_and_tokens_in_urls_are_masked(text: str, shown: str | None) -> None:
    assert masked(text) == (shown or text)


def test_errors_never_hold_it() -> None:
    for kind in (FactoryError, CheckFailed):
        assert str(kind("http://ann:pw@host is away")) == "http://ann:***@host is away"
