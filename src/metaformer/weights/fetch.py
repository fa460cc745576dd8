"""Published weights → a file on this machine: looked up, else downloaded, resumed where cut off, checked by hash or size.

The address, size and hash of a file in a Hugging Face repository come from huggingface_hub, and so do the token and the
endpoint. The bytes do not: huggingface_hub 2.4 starts a broken download from its beginning and checks no hash.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from metaformer import download
from metaformer.download import TIMEOUT, PassingError, Progress, Remote, is_offline, keep, refused, retried
from metaformer.weights.catalogue import DEFAULT, ROWS, Published

# --- what a caller asks for -------------------------------------------------------------------------------------------


def fetch(row: Published, *, folder: str | Path | None = None, quiet: bool = False) -> Path:
    """The file of a row of the catalogue, downloaded if it is nowhere here.

    Looked up first in `folder`, by default $METAFORMER_WEIGHTS, under several names (`local_names`); then in the caches of
    this library and of Hugging Face. $METAFORMER_OFFLINE=1 or $HF_HUB_OFFLINE=1 forbids the network; $METAFORMER_CACHE,
    $HF_ENDPOINT and $METAFORMER_MIRROR (for files outside Hugging Face) say where to keep and where to ask. Raises
    ValueError or FileNotFoundError with a sentence; a file is in the cache only if it is whole.
    """
    here = find_local(row, folder)
    if here is not None:
        return here
    if row.on_hub:
        return fetch_hub(row.where, row.file, what=row.name, fixed=True, quiet=quiet)
    kept = cache_folder() / urlsplit(row.where).netloc / row.file
    if kept.is_file():
        return kept
    _check_online(row.name)
    mirror = os.environ.get("METAFORMER_MIRROR")
    base = f"{mirror.rstrip('/')}/weights" if mirror else row.where
    ending = re.search(r"-([0-9a-f]{8})\.pth$", row.file)
    remote = Remote(f"{base}/{row.file}", None, "sha256" if ending else "", ending[1] if ending else "")
    with _bar(row.name, quiet=quiet) as progress:
        return keep(remote, kept, progress)


def fetch_hub(
    repo: str, file: str, *, revision: str = "main", what: str = "", fixed: bool = False, quiet: bool = False
) -> Path:
    """A file of a Hugging Face repository. `fixed` takes one that is here without asking whether there is a newer one.

    What is here serves also where the server cannot be reached. Raises ValueError or FileNotFoundError with a sentence.
    """
    what = what or f"{file} of {repo}"
    folder = cache_folder() / "hub" / repo.replace("/", "--")
    fixed = fixed or _is_commit(revision)
    here = _newest(folder, file, revision) or _in_hub_cache(repo, file, revision)
    if here is not None and (fixed or is_offline()):
        return here
    _check_online(what)
    try:
        remote = retried(lambda: _ask_hub(repo, file, revision), f"ask for {repo}/{file}", tries=None if here is None else 1)
    except ConnectionError:
        if here is None:
            raise
        return here
    with _bar(what, quiet=quiet) as progress:
        return keep(remote, folder / remote.commit / file, progress)


def cache_folder() -> Path:
    """Where downloaded weights are kept."""
    return download.cache_folder() / "weights"


def _check_online(what: str) -> None:
    if is_offline():
        raise FileNotFoundError(
            f"{what} is not on this machine, and METAFORMER_OFFLINE or HF_HUB_OFFLINE forbids to fetch it: unset that, "
            "or put the file into a folder that METAFORMER_WEIGHTS names"
        )


# --- what is here already ---------------------------------------------------------------------------------------------


def local_names(row: Published) -> list[str]:
    """The names under which a folder may have these weights: ours, the repository's, the published file's, in any format."""
    names = [f"{row.name}{suffix}" for suffix in (".safetensors", ".pth")]
    for same in ROWS:
        if (same.model, same.tag) == (row.model, row.tag):
            repo = same.where.rpartition("/")[2]
            own = [f"{repo}.safetensors", f"{repo}/{same.file}", f"{same.where.replace('/', '--')}/{same.file}"]
            named = row.model.rpartition("_")[2] in same.file
            names += [same.file, same.file.rpartition("/")[2]] if named else own
    if row.tag == DEFAULT:
        names += [f"{row.model}{suffix}" for suffix in (".safetensors", ".pth")]
    return list(dict.fromkeys(names))


def find_local(row: Published, folder: str | Path | None = None) -> Path | None:
    """The weights in a folder, $METAFORMER_WEIGHTS unless given; None if that has none or is not set.

    Raises FileNotFoundError if the folder does not exist.
    """
    named = folder or os.environ.get("METAFORMER_WEIGHTS")
    if not named:
        return None
    place = Path(named).expanduser()
    if not place.is_dir():
        said = f"{place}" if folder else f"METAFORMER_WEIGHTS={named}"
        raise FileNotFoundError(f"{said} is no folder: name one that holds files of weights")
    return next((place / name for name in local_names(row) if (place / name).is_file()), None)


def _is_commit(revision: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def _newest(folder: Path, file: str, revision: str) -> Path | None:
    """The file as it was at a commit, or else as it was last fetched."""
    files = folder.glob(f"{revision if _is_commit(revision) else '*'}/{file}")
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def _in_hub_cache(repo: str, file: str, revision: str) -> Path | None:
    """What another program, such as timm, has downloaded."""
    from huggingface_hub import try_to_load_from_cache

    with hub_errors(f"{repo}/{file}"):
        found = try_to_load_from_cache(repo, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


# --- asking the hub ---------------------------------------------------------------------------------------------------


def endpoint() -> str:
    """The hub's address: $HF_ENDPOINT, else huggingface.co."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _ask_hub(repo: str, file: str, revision: str) -> Remote:
    """Raises PassingError, or FileNotFoundError or ValueError with a sentence."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    with hub_errors(f"{repo}/{file}"):
        url = hf_hub_url(repo, file, revision=revision, endpoint=endpoint())
        told = get_hf_file_metadata(url, timeout=TIMEOUT, endpoint=endpoint())
    if not told.etag or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", told.etag):
        raise ValueError(f"{url}: the server tells no hash of this file, so it is no Hugging Face hub: see HF_ENDPOINT")
    if not told.commit_hash or not _is_commit(told.commit_hash):  # it names a folder of the cache
        raise ValueError(f"{url}: the server tells no commit of this file, so it is no Hugging Face hub: see HF_ENDPOINT")
    algorithm = "sha256" if len(told.etag) == 64 else "git"
    own = urlsplit(told.location).netloc == urlsplit(endpoint()).netloc
    headers = build_hf_headers(library_name="metaformer") if own else {}
    return Remote(told.location, told.size, algorithm, told.etag, headers, str(told.commit_hash))


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into PassingError, or into one sentence."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise ValueError(f"{what} names no Hugging Face repository: write USER/NAME") from error
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f"Hugging Face has no {what}, or you may not see it: check the name; for a private repository, hf auth login"
        ) from error
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(f"Hugging Face has no file {what}") from error
    except errors.HfHubHTTPError as error:
        problem = refused(what, error.response.status_code, error.response.headers.get("Retry-After"))
        if isinstance(problem, PermissionError):
            problem = PermissionError(f"{problem}: log in with hf auth login, or check HF_TOKEN")
        raise problem from error
    except (errors.HTTPError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PassingError(f"{endpoint()} cannot be reached ({reason})") from error


@contextmanager
def _bar(what: str, *, quiet: bool) -> Iterator[Progress]:
    """A progress bar on standard error, gone when it is full; none when quiet or where nobody would see it move."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    hidden = quiet or not screen.is_terminal or os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS") == "1"
    with Progress(*columns, console=screen, transient=True, disable=hidden) as bar:
        task = bar.add_task(f"downloading {what}", total=None)
        yield lambda have, total: bar.update(task, completed=have, total=total)
