"""The SOURCE of a conversion: a local folder, or a repository on the Hugging Face Hub.

huggingface_hub downloads into its own cache, only the files that a conversion needs; an interrupted download is
resumed. HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE work as in that library.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_edge.convert.diagnose import explain_file
from qwen_edge.core.errors import ConversionError
from qwen_edge.core.progress import LINE_EVERY, MEGABYTES, Progress, Stage

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

DEFAULT_SOURCE = "Qwen/Qwen3-0.6B"
# so that a plain `qwen-edge convert` always gives the same model
_PINNED = {"Qwen/Qwen3-0.6B": "c1899de289a04d12100db370d81485cdf75e47ca"}
_DESCRIPTIONS = [
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.j*",
    "additional_chat_templates/*.jinja",
    "README.md",  # licence and authorship, which are copied into the GGUF file
]
_NEEDED = [*_DESCRIPTIONS, "adapter_config.json", "model*.safetensors"]
_KEPT = "files downloaded so far are kept"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk and its origin. `revision` is the commit of a Hub repository, else None."""

    folder: Path
    name: str
    origin: str
    revision: str | None = None


def description_files(folder: Path) -> list[Path]:
    """The files of a checkpoint that a conversion reads, without the weights."""
    return sorted(file for pattern in _DESCRIPTIONS for file in folder.glob(pattern) if file.is_file())


def fetch(source: str, revision: str | None, progress: Progress) -> Source:
    """Find the local folder, or download the repository. Raises ConversionError."""
    try:
        folder = Path(source).expanduser()
        is_here = folder.is_dir()
        other = None if is_here or not folder.exists() else explain_file(folder)
    except (OSError, RuntimeError) as error:  # no permission, a name too long, the home of an unknown user
        raise ConversionError(
            f"{source} cannot be read: {str(error).rstrip('.')}. Give another folder, or a Hub name."
        ) from None
    if other:
        raise ConversionError(other)
    if is_here:
        if revision is not None:
            raise ConversionError(
                f"{source} is a local folder: --revision applies only to Hub repositories. Leave it out."
            )
        return Source(folder, folder.resolve().name, str(folder.resolve()))
    if not _HUB_NAME.fullmatch(source) or source.startswith((".", "~")):
        raise ConversionError(
            f"{source} is neither a folder nor a Hub name. Give a folder, or a name like {DEFAULT_SOURCE}."
        )
    return _download(source, revision or _PINNED.get(source), progress)


def _download(repo: str, revision: str | None, progress: Progress) -> Source:
    # imported here: the import takes half a second and is not needed for a local folder
    from huggingface_hub import snapshot_download

    progress.say(f"fetching {repo} (revision {revision or 'main'}) from the Hub")
    try:
        folder = snapshot_download(repo, revision=revision, allow_patterns=_NEEDED, tqdm_class=_bars(progress))
    except Exception as error:  # errors of httpx, httpx2, hf_xet or the library itself, which share no base class
        raise ConversionError(_explain(error, repo, revision)) from error
    return Source(Path(folder), repo.rpartition("/")[2], repo, Path(folder).name)


def _explain(error: Exception, repo: str, revision: str | None) -> str:
    """Why the download failed, and what to do."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        if not isinstance(error.__cause__, errors.HfHubHTTPError):
            why = f" ({_first_line(error.__cause__)})" if error.__cause__ else ""
            return (
                f"{repo} is not (completely) in the local Hub cache, and the Hub cannot be reached{why}. Check the "
                f"network, or HF_HUB_OFFLINE, and try again: {_KEPT}."
            )
        error = error.__cause__  # the Hub was reached: this is its answer
    if isinstance(error, errors.HFValidationError):
        return f"{repo} is not a valid Hub name (such as {DEFAULT_SOURCE}): {_first_line(error)}"
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_answer(error, repo, revision)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk of the Hub cache {constants.HF_HUB_CACHE} is full. Make room, or set HF_HOME to a folder on "
            f"another disk, and try again: {_KEPT}."
        )
    if isinstance(error, OSError) and error.filename:
        return (
            f"Cannot write to the Hub cache: {error.filename}: {error.strerror}. "
            "Set HF_HOME to a folder you may write to."
        )
    return (
        f"Downloading {repo} failed: {_first_line(error)}. Check the network, the proxy and HF_ENDPOINT, and try "
        f"again: {_KEPT}."
    )


def _explain_answer(error: HfHubHTTPError, repo: str, revision: str | None) -> str:
    """Why the Hub refused the download, by its answer, and what to do."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"{repo} requires you to accept its terms: do so on its Hub page, then set HF_TOKEN and try again."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"There is no repository {repo} on the Hub. Check the name; if the repository is private, set HF_TOKEN."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}. Its Hub page lists the branches and tags."
    status = error.response.status_code
    if status in (401, 403):
        return f"The Hub refuses access to {repo} (HTTP {status}). Check that HF_TOKEN is valid and may read it."
    return f"The Hub answered HTTP {status} for {repo}. Try again later: {_KEPT}."


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or ["no reason given"]
    return f"{type(error).__name__}: {lines[0].rstrip('. ')}"


def _bars(progress: Progress) -> type[Any] | None:
    """The progress bars of the Hub library on a terminal (None); plain lines in a log."""
    if progress.on_terminal:
        return None
    from tqdm import tqdm

    class PlainLines(tqdm):  # type: ignore[type-arg,misc,unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.stage = Stage("downloading", unit=MEGABYTES, done=kwargs.get("initial") or 0.0)
            super().__init__(*args, **{**kwargs, "mininterval": LINE_EVERY, "disable": False})

        def close(self) -> None:
            self.disable = True  # no final line: the next stage begins with one

        def display(self, *_args: Any, **_kwargs: Any) -> None:
            if self.unit == "B" and self.total and self.n:
                self.stage.total = self.total
                self.stage.reach(self.n)
                progress.say(f"{self.stage.title}: {self.stage}")

    return PlainLines
