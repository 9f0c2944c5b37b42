"""SOURCE of a conversion: a folder on this machine, or a repository on the Hugging Face Hub.

Downloads go through huggingface_hub into its own cache: only the files a conversion needs, resumed where they stopped.
HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_edge.convert.progress import LINE_EVERY, Progress
from qwen_edge.errors import ConversionError

DEFAULT_SOURCE = "Qwen/Qwen3-0.6B"
# what a plain `qwen-edge convert` fetches does not change under its users
_PINNED = {"Qwen/Qwen3-0.6B": "c1899de289a04d12100db370d81485cdf75e47ca"}
_NEEDED = [
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "chat_template.j*",
    "README.md",  # licence and authorship, which the GGUF carries on
]
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk and where it came from. `revision` is a commit for a Hub repository, else None."""

    folder: Path
    name: str
    origin: str
    revision: str | None = None


def fetch(source: str, revision: str | None, progress: Progress) -> Source:
    """Find the folder, or download the repository. Raises ConversionError."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ConversionError(f"{source} is a folder here: --revision applies to Hub repositories only.")
        return Source(folder, folder.resolve().name, str(folder.resolve()))
    if not _HUB_NAME.fullmatch(source) or source.startswith((".", "~")):
        raise ConversionError(
            f"{source}: no such folder, and not a Hub name either (those look like {DEFAULT_SOURCE})."
        )
    return _download(source, revision or _PINNED.get(source), progress)


def _download(repo: str, revision: str | None, progress: Progress) -> Source:
    # imported here: it takes half a second, and a local folder needs none of it
    from huggingface_hub import errors, snapshot_download

    progress.say(f"fetching {repo} (revision {revision or 'main'}) from the Hub")
    try:
        folder = snapshot_download(repo, revision=revision, allow_patterns=_NEEDED, tqdm_class=_bars(progress))
    except errors.GatedRepoError:
        raise ConversionError(
            f"{repo} asks its users to accept its terms: do that on its Hub page, then set HF_TOKEN and try again."
        ) from None
    except errors.RepositoryNotFoundError:
        raise ConversionError(f"There is no repository {repo} on the Hub (or it is private: set HF_TOKEN).") from None
    except errors.RevisionNotFoundError:
        raise ConversionError(f"{repo} has no revision {revision!r}.") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise ConversionError(
            f"{repo} is not (wholly) in the local Hub cache, and the Hub cannot be reached. Check the network, or "
            "HF_HUB_OFFLINE, and try again: what was downloaded so far is kept."
        ) from None
    except (errors.HfHubHTTPError, ConnectionError) as error:
        raise ConversionError(
            f"Downloading {repo} failed: {str(error).splitlines()[0]}. Try again: what was downloaded so far is kept."
        ) from None
    return Source(Path(folder), repo.rpartition("/")[2], repo, Path(folder).name)


def _bars(progress: Progress) -> type[Any] | None:
    """On a terminal the Hub library's own bars; in a log a plain line now and then."""
    if progress.on_terminal:
        return None
    from tqdm import tqdm

    class PlainLines(tqdm):  # type: ignore[type-arg,misc,unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "mininterval": LINE_EVERY, "disable": False})

        def close(self) -> None:
            self.disable = True  # no line of farewell: the next stage speaks

        def display(self, *_args: Any, **_kwargs: Any) -> None:
            if self.unit == "B" and self.total and self.n:
                rate = self.format_dict["rate"] or 0.0
                progress.say(progress.line("downloading", int(self.n), int(self.total), rate))

    return PlainLines
