"""A library that shifts the wall clock of the processes that load it: Linux has no namespace for that clock."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SKEW_SECONDS = 300
SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *at) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(clock, at);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec -= SKEW;
  return failed;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}
"""


def build_skewed_clock(folder: Path) -> Path | None:
    """Compile the library into a folder, for ``LD_PRELOAD``; None where there is no C compiler."""
    if shutil.which("cc") is None:
        return None
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(SOURCE)
    words = ["cc", "-shared", "-fPIC", "-O1", f"-DSKEW={SKEW_SECONDS}", "-o", str(library), str(source), "-ldl"]
    subprocess.run(words, check=True)
    return library
