"""Reports of a fleet without a hub: each agent pushes its newest one to a branch of its own in a report repository.

The branch ``report/CLUSTER`` is one commit without a parent, replaced every time: pushes of two agents never touch the
same reference, and the repository does not grow with time.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from agent.config import Config
from agent.courier import FolderPost
from agent.git import Git, GitEnded, GitFailed
from agent.proof import Proof
from agent.wire.errors import Retry
from agent.wire.report import REPORT_NAME, REPORT_SIGNATURE_NAME, report_branch

_MOST_BYTES: Final = 16 << 20
_WHO: Final = "Edgeferry <edgeferry@localhost> 0 +0000"
_REFUSES: Final = re.compile(r"[Aa]uthentication failed|could not read|Permission denied|remote rejected|403|401")
_RACE: Final = re.compile(r"cannot lock ref|Unable to create|failed to update ref|reference already exists")
_TRIES: Final = 5
_PREFIX: Final = ".report."


class ReportsRefused(Retry):
    """The report repository does not take the push: missing rights, a protected branch, or a hook."""

    code = "EF4071"
    delay_s = 60.0


class GitPost:
    """Pushes reports. ``STATE/report/`` has the newest one, too.

    Args:
        config: ``reports`` is where to; ``cluster`` names the branch.
        proof: of this cluster; shown to the host of the fleet repository only.
        root: the state directory.
    """

    def __init__(self, config: Config, proof: Proof, root: Path) -> None:
        self._folder = FolderPost(root)
        self._root = root
        self._url, self._branch = config.reports, report_branch(config.cluster)
        for left in root.glob(f"{_PREFIX}*"):  # of an agent that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._git = Git(config.reports, config, proof, root, _MOST_BYTES)

    def send(self, data: bytes, signature: bytes) -> bool:
        """See ``Post``; events stay in the outbox, and the newest are in every report."""
        self._folder.send(data, signature)
        with TemporaryDirectory(dir=self._root, prefix=_PREFIX) as work:
            repository = Path(work)
            self._git.run(None, "init", "--quiet", "--bare", work)
            commit = self._commit(repository, data, signature)
            for left in reversed(range(_TRIES)):
                try:
                    self._git.run(repository, "push", "--quiet", "--force", "--", self._url, f"{commit}:{self._branch}")
                    break
                except GitEnded as ended:
                    if not left or not _RACE.search(ended.said):
                        raise self._fault(ended.said) from None
        return False

    def interrupt(self) -> None:
        """See ``Post``."""
        self._git.interrupt()

    def _commit(self, repository: Path, data: bytes, signature: bytes) -> str:
        lines = []
        for name, content in ((REPORT_NAME, data), (REPORT_SIGNATURE_NAME, signature)):
            oid = self._git.run(repository, "hash-object", "-w", "--stdin", stdin=content).decode().strip()
            lines.append(f"100644 blob {oid}\t{name}\n")
        tree = self._git.run(repository, "mktree", stdin="".join(lines).encode()).decode().strip()
        commit = f"tree {tree}\nauthor {_WHO}\ncommitter {_WHO}\n\nReport\n".encode()
        made = self._git.run(repository, "hash-object", "-t", "commit", "-w", "--stdin", stdin=commit)
        return made.decode().strip()

    def _fault(self, said: str) -> Retry:
        if _REFUSES.search(said):
            do = "give this site the right to push its own branch there, by its credential or an SSH key"
            return ReportsRefused(said, where=f"{self._url} {self._branch}", do=do)
        return GitFailed(f"git push: {said or 'killed'}", where=self._url, do="check `reports` in agent.json")
