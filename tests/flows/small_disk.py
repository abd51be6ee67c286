"""`factory run` in a workspace on a disk that is too small, and again once there is room; started by test_full_disk.

Run in a user and mount namespace of its own, where anybody may mount a tmpfs. Prints what both runs did.
"""

import json
import subprocess
import sys
from pathlib import Path


def run_twice(project: Path, megabytes: int) -> dict[str, object]:
    """Exit codes, errors, and the files that were half-written when the disk was full."""
    home = project / ".factory"
    home.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(home)]
    subprocess.run(options, check=True)
    first = _factory(project)
    full = sorted(str(path.relative_to(home)) for path in home.glob("store/*/*") if not (path / "stage.json").exists())
    subprocess.run(["mount", "-o", "remount,size=4g", str(home)], check=True)
    second = _factory(project)
    used = sum(path.stat().st_size for path in home.rglob("*") if path.is_file()) / 1e6
    return {"first": first, "half_written": full, "second": second, "megabytes": used}


def _factory(project: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "flows.cli.main", "run", "--json"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=900)
    answer = json.loads(done.stdout) if done.stdout else None
    return {"code": done.returncode, "errors": done.stderr, "answer": answer}


if __name__ == "__main__":
    print(json.dumps(run_twice(Path(sys.argv[1]), int(sys.argv[2]))))
