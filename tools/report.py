"""After a scheduled run: an issue for each job that failed, or a comment on the one
that is open.

For GitHub Actions: there is the program ``gh``; GH_TOKEN and GH_REPO tell it who asks
and where; and NEEDS holds the results of the jobs before, as ``toJSON(needs)`` writes
them.
"""

from __future__ import annotations

import json
import os
import subprocess


def gh(*arguments: str) -> str:
    return subprocess.run(
        ["gh", *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def report(job: str, run: str) -> None:
    """Say that ``job`` failed in the run at the address ``run``, in the one open issue
    about that job."""
    title = f"Weekly run: {job} fails"
    opened = json.loads(
        gh(
            "issue",
            "list",
            "--state",
            "open",
            "--limit",
            "1000",
            "--json",
            "number,title",
        )
    )
    numbers = [issue["number"] for issue in opened if issue["title"] == title]
    where = ["comment", str(min(numbers))] if numbers else ["create", "--title", title]
    print(
        gh(
            "issue",
            *where,
            "--body",
            f"The job `{job}` failed in {run}, which shows where and why.",
        )
    )


def main() -> None:
    run = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}".format(
        **os.environ
    )
    for job, outcome in json.loads(os.environ["NEEDS"]).items():
        if outcome["result"] not in ("success", "skipped"):
            report(job, run)


if __name__ == "__main__":
    main()
