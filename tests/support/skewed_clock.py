"""A library that shifts the wall clock of the processes that load it: Linux has no namespace for that clock.

Deadlines that are times of that clock are shifted back for the kernel: else they have passed when a wait begins, and
every thread of Ray that waits spins.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SKEW_SECONDS = 300
SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/syscall.h>
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

/* A deadline of the monotonic clock counts from the start of the machine: its seconds are few. */
static const struct timespec *back(const struct timespec *deadline, struct timespec *shifted) {
  if (!deadline || deadline->tv_sec < 1000000000) return deadline;
  *shifted = *deadline;
  shifted->tv_sec += SKEW;
  return shifted;
}
int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *deadline) {
  static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  struct timespec shifted;
  /* Without the version the linker finds the one of 2002, whose conditions are others. */
  if (!real) *(void **)&real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  return real(cond, mutex, back(deadline, &shifted));
}
int pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock,
                           const struct timespec *deadline) {
  static int (*real)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
  struct timespec shifted;
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
  return real(cond, mutex, clock, back(deadline, &shifted));
}
long syscall(long number, ...) {
  static long (*real)(long, long, long, long, long, long, long);
  struct timespec shifted;
  long a, b, c, d, e, f;
  va_list rest;
  va_start(rest, number);
  a = va_arg(rest, long); b = va_arg(rest, long); c = va_arg(rest, long);
  d = va_arg(rest, long); e = va_arg(rest, long); f = va_arg(rest, long);
  va_end(rest);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "syscall");
  if (number == SYS_futex && (b & FUTEX_CLOCK_REALTIME)) d = (long)back((const struct timespec *)d, &shifted);
  return real(number, a, b, c, d, e, f);
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
