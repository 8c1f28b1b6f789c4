"""The guide to an own problem: its code runs as it stands, and does what it says."""

import re
import subprocess
import sys

from tools.project import ROOT

GUIDE = ROOT / "pages" / "own-problem.md"
#: What the text says of the result, asked of the guide's own variables.
SAID = """
assert scores["together"]["kind"] > 0.8, scores  # chance: a third
assert scores["together"]["faulty/auroc"] > 0.9, scores
assert 0.02 < below < 0.25, below  # a tenth was promised
assert len(history) <= 60 and history.best_epoch is not None
assert not network.training and not any(p.requires_grad for p in network.parameters())
assert network[1].num_batches_tracked == 0  # its running means have not moved
assert list(Path("runs/parts").glob("events*"))
assert path.exists() and predictor.outputs == ("kind", "faulty", "life")
"""


def test_the_guide_runs(tmp_path):
    text = GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    code = "\n".join([*blocks, SAID])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "a reader would see a warning: " + done.stderr
