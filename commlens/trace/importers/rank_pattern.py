"""The pattern that people give to find ranks in names of files."""

from __future__ import annotations

import re

from commlens.errors import UsageError


def rank_pattern(rank_regex: str) -> re.Pattern[str]:
    """The pattern, whose first group is a rank's number.

    Raises:
        UsageError: It is none, or has no group.
    """
    try:
        pattern = re.compile(rank_regex)
    except re.error as error:
        raise UsageError(f"--rank-regex '{rank_regex}' is no regular expression: {error}") from None
    if pattern.groups < 1:
        raise UsageError(f"--rank-regex '{rank_regex}' has no group around the number, as 'rank(\\d+)' has")
    return pattern
