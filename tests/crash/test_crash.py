"""A short storm in every run of the suite; `make crash` is the long one."""

from __future__ import annotations

from pathlib import Path

from tests.crash.run import Plan, run

QUICK = ("helpdesk", "docs", "machines", "tasks", "floor")  # servers that start at once


async def test_nothing_is_lost_doubled_or_reordered_in_a_short_storm(tmp_path: Path) -> None:
    said: list[str] = []
    plan = Plan(4, 1, 4, customers=2, callers=1, writing=2.5, calling=3, calm=120, tools=QUICK)
    count = await run(plan, tmp_path, said.append)
    assert count.sound, "\n".join([*said, str(count.line())])
    assert count.kills == 4
    assert count.accepted > 5
    assert count.replies > 0
    assert count.comments > 0
    assert count.items > 0
