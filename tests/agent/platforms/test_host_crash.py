"""Platform host when things end in the middle: the agent, the machine, a disk, somebody else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.actions import Refresh, Remove, Repair, Retire, Start, Switch
from agent.platforms import host_look, host_sight, host_supervise
from agent.platforms.host import HostBusy
from agent.platforms.host_stop import stop_everything
from tests.agent.platforms.host_site import Site, alive, ask, until

pytest_plugins = ["tests.agent.platforms.host_fixtures"]

DRIVER = """
import os, signal, sys
from pathlib import Path
from tests.agent.platforms import host_site
from agent.actions import ModelPoint, Refresh, Remove, Repair, Retire, Start, Switch
from agent.config import Config

state, first, kill_at = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
site = host_site.Site(state, Config("milan-01", "f-1", first_port=first, last_port=first + 39, drain_s=5.0))
one, two = site.entry("m", "1.0.0"), site.entry("m", "2.0.0", switch=sys.argv[4])
worker = site.worker("w", "1.0.0", "m")
QUICK = ("marked", "_nonce", "_session", "_started", "fingerprint", "_looks", "<listcomp>", "<genexpr>", "<dictcomp>")
lines = 0

def trace(frame, event, argument):
    global lines
    code = frame.f_code
    if "/agent/platforms/host" not in code.co_filename or code.co_name in QUICK:
        return None
    if event == "line":
        lines += 1
        if lines == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace

def do(action):
    sys.settrace(trace)
    site.platform.execute(action)
    site.observe()
    sys.settrace(None)

do(Start(one))
site.until_current(one)
do(Switch(one, None))
do(Start(worker, (ModelPoint("m", "1.0.0"),)))
do(Switch(worker, None))
do(Start(two))
site.until_current(two)
do(Switch(two, one))
do(Refresh(worker, "restart", (ModelPoint("m", "2.0.0"),)))
do(Retire(one))
os.kill(host_site.ask(site.seen(two).url)["pid"], signal.SIGKILL)
site.until(two, lambda seen: seen.health == "degraded")
do(Repair(two, "gone"))
do(Remove("workload", "w"))
print(lines, flush=True)
"""


def drive(state: Path, first: int, kill_at: int, switch: str) -> int:
    """Run the driver; return how many lines it took, 0 where it was killed."""
    command = [sys.executable, "-c", DRIVER, str(state), str(first), str(kill_at), switch]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100)
    assert done.returncode == (-signal.SIGKILL if not done.stdout else 0), done.stderr
    return int(done.stdout or 0)


POINTS = int(os.environ.get("EDGEFERRY_KILLS", "6"))
"""How many lines of the agent it is killed at, spread over all of them."""

LINES = 6000
"""About as many lines of the platform the driver runs through."""


@pytest.mark.parametrize("switch", ["beside", "replace"])
@pytest.mark.parametrize("share", range(POINTS))
def test_an_agent_killed_at_any_line_leaves_nothing_unknown_and_nothing_undone(
    sites: Any, switch: str, share: int
) -> None:
    site = sites()
    drive(site.state, site.config.first_port, 1 + share * LINES // POINTS, switch)
    state_id = (site.state / "host/id").read_text() if (site.state / "host/id").exists() else ""
    one, two = site.entry("m", "1.0.0"), site.entry("m", "2.0.0", switch=switch)
    site.observe()
    records = {record.key: record for record in site.platform._parts()[0].records}
    known = {instance.nonce for record in records.values() for instance in record.instances}
    until(lambda: all(n in known or n.startswith("forwarder.") for n in host_supervise.marked(state_id or "x")))
    site.platform.execute(Start(two))
    site.until_current(two)
    site.platform.execute(Switch(two, one))
    for digest in [seen.digest for seen in site.observe().seen if seen.name == "m" and seen.digest != two.digest]:
        staged = next((s for s in site.known.values() if s.digest == digest), None)
        if staged is not None:
            site.platform.execute(Retire(staged))
    site.platform.execute(Remove("workload", "w"))
    assert ask(site.seen(two).url)["say"] == "2.0.0"
    site.platform.execute(Remove("model", "m"))
    assert site.observe().seen == ()
    state_id = (site.state / "host/id").read_text()
    assert host_supervise.marked(state_id) == {}


def test_a_process_that_was_started_and_not_yet_recorded_is_taken_over(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    url = site.up(one).url
    pid = ask(url)["pid"]
    _edit(site, "model-m", lambda instance: instance | {"phase": "intended", "pid": 0, "started": 0, "boot": ""})
    seen = site.seen(one)
    assert (seen.health, seen.serving) == ("current", True)
    assert ask(url)["pid"] == pid


def test_an_intent_without_a_process_is_forgotten(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    site.platform.execute(Start(one))
    site.until_current(one)
    stop_everything(site.state)
    _edit(site, "model-m", lambda instance: instance | {"phase": "intended", "pid": 0, "started": 0, "boot": ""})
    site.platform.execute(Start(one))
    assert site.until_current(one)


def test_a_stray_process_of_ours_ends_when_an_agent_comes(site: Any) -> None:
    site.observe()
    state_id = (site.state / "host/id").read_text()
    stray = subprocess.Popen(
        ["sleep", "600"], env={host_supervise.MARK: f"{state_id}/unknown", "PATH": os.environ["PATH"]}
    )
    foreign = subprocess.Popen(
        ["sleep", "600"], env={host_supervise.MARK: "another/unknown", "PATH": os.environ["PATH"]}
    )
    try:
        until(lambda: "unknown" in host_supervise.marked(state_id))
        site.again()
        site.observe()
        assert stray.wait(30) == -signal.SIGKILL
        assert foreign.poll() is None
    finally:
        stray.kill()
        foreign.kill()
        stray.wait()
        foreign.wait()


def test_a_pid_that_was_used_again_is_never_taken_for_ours(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    pid = ask(site.up(one).url)["pid"]
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid))
        _edit(site, "model-m", lambda instance: instance | {"pid": bystander.pid})
        assert "its process is gone" in site.seen(one).drift
        site.platform.execute(Remove("model", "m"))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_reboot_is_no_failure(site: Any) -> None:
    """What serves is drift, to be repaired; a candidate is simply not there any more, so that it is started again."""
    one, two = site.entry("m", "1.0.0"), site.entry("m", "2.0.0")
    url = site.up(one).url
    site.platform.execute(Start(two))
    stop_everything(site.state)
    _edit(site, "model-m", lambda instance: instance | {"boot": "an-earlier-boot"})
    seen = site.seen(one)
    assert (seen.serving, seen.health, seen.drift) == (True, "degraded", "the machine was started again")
    assert site.seen(two) is None
    site.platform.execute(Repair(one, seen.drift))
    assert site.until_current(one).url == url
    assert ask(url)["say"] == "1.0.0"


def test_an_unreadable_record_is_set_aside_and_its_process_does_not_stay_unknown(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    url = site.up(one).url
    pid = ask(url)["pid"]
    site.platform.close()
    (site.state / "host/entries/model-m.json").write_text('{"format": 1, "key": ')
    site.again()
    assert site.seen(one) is None
    until(lambda: not alive(pid))
    assert site.up(one).url == url
    assert ask(url)["say"] == "1.0.0"


def test_one_agent_works_with_a_state_and_another_may_look(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    site.up(one)
    second = Site(site.state, site.config)
    before = _files(site.state)
    assert second.platform.observe((one,)).seen == site.observe().seen
    with pytest.raises(HostBusy):
        second.platform.execute(Remove("model", "m"))
    assert _files(site.state) == before
    second.platform.close()
    assert ask(site.seen(one).url)["say"] == "1.0.0"


def test_a_quiet_host_is_not_written_to(site: Any) -> None:
    site.up(site.entry("m", "1.0.0"))
    site.up(site.entry("f", "1.0.0", delivery="file"))
    site.up(site.worker("w", "1.0.0"))
    site.observe()
    before = _files(site.state)
    for _ in range(5):
        site.observe()
    assert _files(site.state) == before


def test_in_flight_requests_end_at_the_old_process_before_it_is_stopped(site: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    one, two = site.entry("m", "1.0.0", slow=True), site.entry("m", "2.0.0")
    url = site.up(one).url
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, url, "/v2/models/m/infer", b"{}")
        until(lambda: Path(f"{one.model}.asked").exists())
        site.replace(two, one)
        assert ask(url)["say"] == "2.0.0"
        assert not asked.done()
        Path(f"{one.model}.go").touch()
        assert asked.result()["outputs"] == [{"data": ["1.0.0", 2]}]
    until(lambda: site.observe() and not _instances(site, one.digest))


def test_a_question_that_never_ends_is_asked_of_the_new_one_when_the_drain_is_over(sites: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    site = sites(drain_s=0.2)
    one, two = site.entry("m", "1.0.0", slow=True), site.entry("m", "2.0.0")
    url = site.up(one).url
    pid = ask(url)["pid"]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, url, "/v2/models/m/infer", b"{}")
        until(lambda: Path(f"{one.model}.asked").exists())
        site.replace(two, one)
        site.until_gone(pid)
        assert asked.result()["outputs"] == [{"data": ["2.0.0", 2]}]


def test_a_draining_process_comes_back_for_a_return(site: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    one, two = site.entry("m", "1.0.0", slow=True), site.entry("m", "2.0.0")
    url = site.up(one).url
    pid = ask(url)["pid"]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, url, "/v2/models/m/infer", b"{}")
        until(lambda: Path(f"{one.model}.asked").exists())
        site.replace(two, one)
        site.platform.execute(Start(one))
        site.until_current(one)
        site.platform.execute(Switch(one, two))
        assert ask(url)["pid"] == pid
        Path(f"{one.model}.go").touch()
        asked.result()


def test_a_client_that_asks_all_the_time_sees_no_failed_request_over_twenty_switches(site: Any) -> None:
    import http.client
    import threading

    failures: list[object] = []
    answers: list[str] = []
    answered, ended = threading.Semaphore(0), threading.Event()

    def hammer(keep: bool) -> None:
        host, port = url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        while not ended.is_set():
            try:
                connection.request("POST", "/v2/models/m/infer", b"x" * 500)
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    failures.append((response.status, body))
                else:
                    answers.append(json.loads(body)["outputs"][0]["data"][0])
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)
                connection.close()
            if not keep:
                connection.close()
            answered.release()
        connection.close()

    old = site.entry("m", "1.0.0")
    url = site.up(old).url
    threads = [threading.Thread(target=hammer, args=(keep,)) for keep in (True, False)]
    for thread in threads:
        thread.start()
    for number in range(20):
        new = site.entry("m", f"2.{number}.0")
        site.replace(new, old)
        old = new
        for _ in range(10):
            assert answered.acquire(timeout=60)
    ended.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {f"2.{number}.0" for number in range(20)} <= set(answers)


def test_a_process_that_hangs_is_started_again(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_look, "HUNG_MS", 1)
    monkeypatch.setattr(host_sight, "HUNG_MS", 1)
    one = site.entry("m", "1.0.0", "hangs")
    url = site.up(one).url
    pid = ask(url)["pid"]
    Path(f"{one.model}.hang").touch()
    seen = site.until(one, lambda seen: seen.health == "degraded")
    assert "has not answered its readiness check" in seen.drift
    Path(f"{one.model}.hang").unlink()
    site.platform.execute(Repair(one, seen.drift))
    assert site.until_current(one).url == url
    assert ask(url)["pid"] != pid
    assert not alive(pid)


def test_stopping_everything_stops_everything_and_a_later_agent_brings_it_back(site: Any) -> None:
    one, worker = site.entry("m", "1.0.0"), site.worker("w", "1.0.0")
    url = site.up(one).url
    site.up(worker)
    site.platform.close()
    done = subprocess.run(
        [sys.executable, "-m", "agent.platforms.host_stop", str(site.state)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "3 stopped\n"
    assert host_supervise.marked((site.state / "host/id").read_text()) == {}
    assert stop_everything(site.state) == 0
    assert stop_everything(site.state / "nowhere") == 0
    site.again()
    for staged in (one, worker):
        site.platform.execute(Repair(staged, site.seen(staged).drift))
        site.until_current(staged)
    assert ask(url)["say"] == "1.0.0"


def test_a_refresh_that_was_cut_off_leaves_one_process(site: Any) -> None:
    app = site.entry("app", "1.0.0", kind="workload", uses=("m",))
    url = site.up(app).url
    site.platform.execute(Refresh(app, "restart", ()))
    _edit_record(site, "workload-app", {"successor": ""})
    until(lambda: site.observe() and len(_instances(site, app.digest)) == 1)
    assert ask(url)["say"] == "1.0.0"


def _edit_record(site: Any, slug: str, change: dict[str, object]) -> None:
    """Change a record as a kill between two writes would have left it."""
    site.platform.close()
    path = site.state / "host/entries" / f"{slug}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    site.again()


def _edit(site: Any, slug: str, change: Any) -> None:
    path = site.state / "host/entries" / f"{slug}.json"
    instances = json.loads(path.read_text())["instances"]
    _edit_record(site, slug, {"instances": [change(instance) for instance in instances]})


def _instances(site: Any, digest: str) -> list[object]:
    records = site.platform._parts()[0].records
    return [instance for record in records for instance in record.instances if instance.digest == digest]


def _files(state: Path) -> dict[str, tuple[int, int]]:
    found = {path: path.lstat() for path in (state / "host").rglob("*") if path.name not in ("lock", "logs")}
    return {str(path): (stat.st_mtime_ns, stat.st_ino) for path, stat in found.items()}
