"""How a device reaches a channel, over HTTP or as a folder, and what TUF's refusals mean to whoever reads them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tuf.api import exceptions
from tuf.ngclient import Urllib3Fetcher
from tuf.ngclient.fetcher import FetcherInterface

from infra.errors import CheckFailed, FactoryError

_CHUNK = 1 << 18


class Refused(CheckFailed):
    """The channel offered something that this device must not use. What the device had before is untouched."""


def open_transport(channel: str) -> tuple[str, FetcherInterface]:
    """Base URL of a channel, and what fetches from it.

    Raises:
        FactoryError: it is neither an HTTP address nor a folder.
    """
    scheme = urlsplit(channel).scheme
    if scheme in ("http", "https"):
        return channel.rstrip("/"), _HttpFetcher(app_user_agent="adapter-factory")
    folder = Path(channel).expanduser().resolve()
    if not folder.is_dir():
        what = "devices download over HTTP: name the web address of the bucket" if scheme else "no such folder"
        raise FactoryError(f"{channel}: {what}")
    return folder.as_uri(), _FolderFetcher()


@contextlib.contextmanager
def refusing(channel: str, what: str, mismatch: str) -> Iterator[None]:
    """TUF's errors as one line each; `mismatch` says what other bytes than the signed ones mean for `what`.

    Raises:
        Refused: for what is signed wrongly, or is not what was signed.
        FactoryError: for what cannot be fetched.
    """
    try:
        yield
    except exceptions.ExpiredMetadataError as error:
        raise Refused(
            f"{channel}: {error}: the channel was not refreshed in time, or somebody holds it back (freeze)"
        ) from None
    except exceptions.BadVersionNumberError as error:
        raise Refused(
            f"{channel}: {what}: another version than was signed, or an older one (rollback): {error}"
        ) from None
    except exceptions.UnsignedMetadataError as error:
        raise Refused(f"{channel}: {what}: not signed by the keys that this device trusts: {error}") from None
    except exceptions.LengthOrHashMismatchError as error:
        raise Refused(f"{channel}: {what}: {mismatch}: {error}") from None
    except exceptions.RepositoryError as error:
        raise Refused(f"{channel}: {what}: no sound metadata: {error}") from None
    except exceptions.DownloadLengthMismatchError as error:
        raise Refused(f"{channel}: {what}: more bytes than were signed for (endless data): {error}") from None
    except exceptions.DownloadError as error:
        reason = error.__cause__ or error
        raise FactoryError(
            f"{channel}: {what}: cannot be fetched ({reason}); check the address and try again"
        ) from None


class _OneError(FetcherInterface):
    """Errors in the middle of a download are download errors too."""

    def fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield from super().fetch(url)
        except exceptions.DownloadError:
            raise
        except Exception as error:
            raise exceptions.DownloadError(f"{url}: {error}") from error


class _HttpFetcher(_OneError, Urllib3Fetcher):
    """HTTP by python-tuf: system certificates, proxies from the environment, three tries."""


class _FolderFetcher(_OneError):
    """Reads `file:` URLs in pieces, as a server would be read."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = Path(url2pathname(urlsplit(url).path))
        if not path.is_file():
            raise exceptions.DownloadHTTPError(f"{path.name}: no such file", 404)
        with path.open("rb") as file:
            while piece := file.read(_CHUNK):
                yield piece
