"""What `factory up` starts, by settings (that it runs: test_stack.py)."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flows.factory import Factory
from flows.stack import stack_environment, stack_services
from infra.errors import FactoryError
from infra.settings import Settings
from infra.supervision import Service

SECRET = "a secret of the tests, long enough"


def triggers(tmp_path: Path, **settings: str) -> Service:
    factory = Factory(Settings.model_validate({"home": tmp_path, "shipped_features": False, **settings}))
    services = stack_services(factory)
    assert SECRET not in str(services) + str(stack_environment(factory, services)), "`ps` and files show these"
    (found,) = [one for group in services for one in group if one.name == "triggers"]
    return found


def test_posts_are_taken_where_a_secret_is_set(tmp_path: Path) -> None:
    quiet = triggers(tmp_path)
    assert quiet.health is None and "--listen" not in quiet.command
    listening = triggers(tmp_path, trigger_secret=SECRET)
    address = urlsplit(str(listening.health))
    assert (address.hostname, address.path) == ("127.0.0.1", "/health")
    assert listening.command[-2:] == ("--listen", address.netloc)


def test_a_secret_that_is_none_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(FactoryError, match="FACTORY_TRIGGER_SECRET"):
        triggers(tmp_path, trigger_secret="short")
