"""Parts of platform host by themselves: files, ports, records, logs."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from agent.actions import ModelPoint
from agent.platforms import host_supervise
from agent.platforms.host_files import env_file, read_models, variables, write_models
from agent.platforms.host_ports import NoFreePort, Ports, is_free
from agent.platforms.host_records import Instance, Record, Records
from agent.wire.errors import Malformed
from tests.agent.platforms.host_site import ports, until


def test_a_file_for_consumers_may_be_read_by_them(tmp_path: Path) -> None:
    write_models(tmp_path, {"n": [ModelPoint("m", "1")]})
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


def test_a_shell_reads_what_stands_in_the_models_file(tmp_path: Path) -> None:
    path = "/a b/$(touch x)/'q'\"`"
    write_models(tmp_path, {"n": [ModelPoint("my.model-1", "1.0.0", "http://h", path)]})
    command = f'. {shlex.quote(str(tmp_path / "models.env"))}; printf %s "$MY_MODEL_1_PATH"'
    assert subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout == path
    assert read_models(tmp_path) == {"n": (ModelPoint("my.model-1", "1.0.0", "http://h", path),)}


def test_a_models_file_that_is_no_json_is_malformed(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text("[")
    with pytest.raises(Malformed):
        read_models(tmp_path)


def test_the_same_models_give_the_same_bytes_in_any_order() -> None:
    one, two = ModelPoint("a", "1"), ModelPoint("b", "2", "u", "p")
    assert env_file({"n": (one, two)}) == env_file({"n": (two, one)})
    assert list(variables([two, one])) == ["A_VERSION", "B_VERSION", "B_URL", "B_PATH"]


def test_ports_run_out_with_an_error_and_the_port_of_a_name_that_is_gone_is_given_away_last(tmp_path: Path) -> None:
    first, _ = ports()
    one = Ports(tmp_path / "ports.json", first, first + 2, "127.0.0.1")
    given = [one.stable(f"model/m{n}", ["model/m0", "model/m2"]) for n in range(3)]
    assert given == [first, first + 1, first + 2]
    with pytest.raises(NoFreePort):
        one.backend(())
    again = Ports(tmp_path / "ports.json", first, first + 2, "127.0.0.1")
    assert again.stable("model/new", ["model/m0", "model/m2", "model/new"]) == first + 1
    with pytest.raises(NoFreePort):
        again.stable("model/newer", ["model/m0", "model/m2", "model/new", "model/newer"])
    assert again.known("model/newer") == 0


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    for address in ("127.0.0.1", "0.0.0.0"):
        with socket.create_server((address, 0)) as taken:
            assert not is_free("127.0.0.1", taken.getsockname()[1])


def test_records_come_back_as_they_were_and_an_equal_one_is_not_written(tmp_path: Path) -> None:
    instance = Instance("n", "sha256:" + "0" * 64, "1.0.0", "up", 1, "v2", "/", 2, 3, "b", True, "s", 4, "t", "f")
    record = Record("model/m", (instance,), "n", "s", "y", True, 5, True, True, "f")
    records = Records(tmp_path, owned=True)
    records.save(record)
    before = (tmp_path / "model-m.json").stat().st_ino
    records.save(record)
    assert (tmp_path / "model-m.json").stat().st_ino == before
    assert list(Records(tmp_path, owned=False)) == [record]
    records.forget(record)
    assert list(Records(tmp_path, owned=True)) == []


@pytest.mark.parametrize(
    "key", ["model/../x", "model/", "x/y", "model/a/b", "model/A", "model/" + "a" * 64, "model/a\n"]
)
def test_no_key_leaves_the_directory(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="not an entry"):
        Records(tmp_path, owned=True).get(key)


def test_a_zombie_does_not_live_and_a_process_is_known_by_its_start(tmp_path: Path) -> None:
    boot = host_supervise.boot_id()
    child = host_supervise.spawn(["sleep", "600"], {"PATH": os.environ["PATH"]}, "test/n", tmp_path, tmp_path / "log")
    process = host_supervise.identify(child.pid, boot)
    assert process is not None
    assert host_supervise.alive(process, boot)
    assert not host_supervise.alive(process, "another boot")
    assert not host_supervise.alive(host_supervise.Process(process.pid, process.started + 1, boot), boot)
    assert os.getsid(child.pid) == child.pid
    child.kill()
    until(lambda: not host_supervise.alive(process, boot))
    assert host_supervise.ending(child.wait()) == "was ended by SIGKILL"
    assert host_supervise.ending(3) == "exited with code 3"


def test_the_last_line_of_a_log_is_one_printable_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\n" * 5000 + b"\x1b[31mred \xff end\r\n\n  \n")
    assert host_supervise.last_line(log) == " [31mred \ufffd end"
    log.write_bytes(b"x" * 10_000)
    assert host_supervise.last_line(log) == "x" * 300
    assert host_supervise.last_line(tmp_path / "none") == ""


def test_a_log_is_turned_over_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("ab", buffering=0) as writer:
        for number in range(4):
            writer.write(bytes([65 + number]) * (host_supervise.LOG_BYTES + 1))
            host_supervise.rotate(log)
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "log.1").read_bytes() == b"D" * host_supervise.LOG_BYTES
    assert (tmp_path / "log.2").read_bytes() == b"C" * host_supervise.LOG_BYTES
    assert len(list(tmp_path.iterdir())) == 3


def test_a_handler_of_a_signal_is_seen() -> None:
    assert host_supervise.catches(os.getpid(), signal.SIGINT)
    assert not host_supervise.catches(os.getpid(), signal.SIGUSR2)
    assert not host_supervise.catches(2**22 + 1, signal.SIGINT)
