"""Findings of the doctor, by subject."""

from __future__ import annotations

from collections.abc import Iterator

from flows.doctor.finding import Finding


def states(findings: Iterator[Finding]) -> dict[str, str]:
    """Return the state of each subject."""
    return {finding.subject: finding.state for finding in findings}


def the_bad(findings: Iterator[Finding]) -> Finding:
    """Return the one finding that is not ok; that Ray is open on loopback does not count."""
    (found,) = [each for each in findings if each.state != "ok" and (each.subject, each.state) != ("ray", "warning")]
    return found
