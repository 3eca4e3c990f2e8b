"""Cases of captioned images and encoders: each generator runs, and what the product makes of its files is judged.

A generator is called as ``python CASES/diffusion/NN_name.py OUT [ENCODERS]``. Cases that are settings need none.

python -m tests.cases.diffusion CASES     these cases alone
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from tests.cases import diffusion_images as images
from tests.cases import diffusion_networks as networks
from tests.cases.files import Files
from tests.cases.verdict import Verdict, print_table

ENCODERS, PLAIN = "08_encoder_folders", "09_plain_dataset"
"""Cases that make the encoders and the images that others need: they come first."""


def judge(cases: Path, scratch: Path, chosen: Sequence[str] = ()) -> Iterator[Verdict]:
    """Run and judge the ``chosen`` cases below ``cases``, or all of them; files go to ``scratch``."""
    for script in sorted(
        (cases / "diffusion").glob("*.py"), key=lambda path: (path.stem not in (ENCODERS, PLAIN), path)
    ):
        number = script.stem.partition("_")[0]
        files = Files(script, scratch / script.stem, scratch / ENCODERS, scratch / PLAIN)
        try:
            _generate(files, SOURCES.get(number, ()))
            if chosen and number not in chosen:
                continue
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                found = list(JUDGES[number](files))
        except Exception as error:  # a case that crashes, or that nothing judges, is a case that fails
            found = [Verdict(script.stem, "judged", f"{type(error).__name__}: {error}"[:200], is_right=False)]
        yield from found


def _generate(files: Files, sources: tuple[str, ...]) -> None:
    """Run the generator once; ``sources`` are the folders of the encoders that it takes."""
    if files.out.exists() or sources == NO_FILES:
        return
    words = [str(files.script), str(files.out), *(str(files.encoders / name) for name in sources)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the generator failed: {done.stderr.strip().splitlines()[-1]}")


NO_FILES = ("no files",)
"""Marks a case that is a setting: its generator is not run."""
SOURCES: dict[str, tuple[str, ...]] = {
    "10": NO_FILES,
    "11": NO_FILES,
    "16": NO_FILES,
    "17": NO_FILES,
    "21": ("clip",),
    "22": NO_FILES,
    "23": ("clip",),
    "25": ("",),
}
"""Case to the folders of ``ENCODERS`` that its generator takes."""
JUDGES: dict[str, Callable[[Files], Iterator[Verdict]]] = {
    "02": images.judge_colours,
    "04": images.judge_lines,
    "05": images.judge_formats,
    "06": images.judge_dots,
    "08": networks.judge_encoders,
    "09": images.judge_plain,
    "10": networks.judge_min_snr,
    "11": networks.judge_unets,
    "13": images.judge_given_splits,
    "14": images.judge_parquet,
    "15": images.judge_names,
    "16": networks.judge_bundle,
    "17": networks.judge_samplers,
    "20": images.judge_long,
    "21": networks.judge_tokenizer_map,
    "22": networks.judge_divergence,
    "23": networks.judge_defaults,
    "24": images.judge_modes,
    "25": networks.judge_other_networks,
}
"""Number of a case to what judges it."""


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="unetflow-cases-") as work:
        verdicts = list(judge(Path(sys.argv[1]).resolve(), Path(work)))
    print_table({"diffusion": verdicts})
    sys.exit(not all(verdict.is_right for verdict in verdicts))
