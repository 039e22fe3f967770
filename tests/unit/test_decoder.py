"""Files are decoded in a process of their own: what harms it, harms nothing else, and ends in a reason."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from captions.media import MediaError, decoder, recordings
from captions.media.decoder import DecoderStopped
from captions.media.recordings import ENCODINGS, Decoder
from support.recordings import READING, SENTENCE, film

pytestmark = pytest.mark.slow

WAV = ENCODINGS[3]
HOURS = READING * 200


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    yield
    assert psutil.Process().children() == []


def pid(running: Decoder) -> int:
    return running._process._process.pid


def test_a_crash_ends_the_file_and_not_the_function() -> None:
    with Decoder(READING) as running:
        parts = running.cut(WAV, longest_s=20)
        next(parts)
        os.kill(pid(running), signal.SIGSEGV)
        with pytest.raises(MediaError, match="SIGSEGV") as caught:
            next(parts)
    assert caught.value.code == "bomb"


def test_processor_time_beyond_the_limit_ends_the_file() -> None:
    with Decoder(READING) as running:
        running.facts()
        os.kill(pid(running), signal.SIGXCPU)
        with pytest.raises(MediaError, match="processor time") as caught:
            running.key_frames(2)
    assert caught.value.code == "bomb"


def test_what_is_killed_once_goes_on_where_it_was() -> None:
    undisturbed = list(recordings.cut(READING, WAV, longest_s=20))
    with Decoder(READING) as running:
        parts = running.cut(WAV, longest_s=20)
        taken = [next(parts), next(parts)]
        os.kill(pid(running), signal.SIGKILL)
        taken += parts
    assert taken == undisturbed


def test_what_is_killed_twice_is_a_bomb() -> None:
    with Decoder(READING) as running:
        parts = running.cut(WAV, longest_s=20)
        for _ in range(2):
            next(parts)
            os.kill(pid(running), signal.SIGKILL)
        with pytest.raises(MediaError, match="twice") as caught:
            next(parts)
    assert caught.value.code == "bomb"


def test_a_stop_from_outside_says_nothing_of_the_file() -> None:
    with Decoder(SENTENCE) as running:
        running.facts()
        os.kill(pid(running), signal.SIGTERM)
        with pytest.raises(DecoderStopped):
            list(running.cut(WAV, longest_s=20))


def test_a_process_that_does_not_start_says_nothing_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "CHILD", "captions.media.no_such_module")
    with pytest.raises(DecoderStopped, match="exit code 1"):
        recordings.facts(SENTENCE)


def test_pictures_that_fill_the_memory_are_a_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    video = film([(10, 200, 10)], size=(1920, 1080), codec="libx264")
    assert recordings.key_frames(video, 2)
    monkeypatch.setattr(recordings, "_FRAMES_MEMORY", 4_000_000)
    with pytest.raises(MediaError, match="memory") as caught:
        recordings.key_frames(video, 2)
    assert caught.value.code == "bomb"


def test_the_process_has_limits_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for decoders")
    with Decoder(SENTENCE) as running:
        running.facts()
        process = psutil.Process(pid(running))
        most = {kind: process.rlimit(kind)[0] for kind in (psutil.RLIMIT_AS, psutil.RLIMIT_CPU, psutil.RLIMIT_CORE)}
        assert process.memory_info().vms < most[psutil.RLIMIT_AS] < process.memory_info().vms + 200_000_000
        assert 0 < most[psutil.RLIMIT_CPU] < 60
        assert most[psutil.RLIMIT_CORE] == 0
        assert "AWS_SECRET_ACCESS_KEY" not in process.environ()
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "1000\n"


def test_a_decoder_that_hangs_is_stopped_when_time_is_over() -> None:
    with Decoder(SENTENCE) as running:
        running.facts()
        os.kill(pid(running), signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            list(running.cut(WAV, longest_s=20, until=began + 0.3))
        assert time.monotonic() - began < 5


def test_time_that_is_over_while_another_video_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    with recordings._one_at_a_time, Decoder(film([(10, 200, 10)])) as running, pytest.raises(TimeoutError):
        running.key_frames(2, until=time.monotonic() + 0.2)


@pytest.mark.deep
def test_ten_threads_decode_at_once() -> None:
    video = film([(200, 30, 30), (30, 200, 30)], seconds_each=2.0)

    def seen(number: int) -> object:
        if number % 2:
            return [frame.at_s for frame in recordings.key_frames(video, 2)]
        return [(part.start_s, part.end_s) for part in recordings.cut(READING, WAV, longest_s=20)]

    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(seen, range(10)))
    assert results[0::2] == [results[0]] * 5
    assert results[1::2] == [results[1]] * 5


def test_parts_that_nobody_takes_leave_no_process() -> None:
    parts = recordings.cut(READING, WAV, longest_s=20)
    next(parts)
    assert len(psutil.Process().children()) == 1
    assert isinstance(parts, Generator)
    parts.close()  # the fixture looks for the process


def test_a_part_is_decoded_when_it_is_asked_for() -> None:
    with Decoder(HOURS) as running:
        parts = running.cut(WAV, longest_s=60)
        next(parts)
        process = psutil.Process(pid(running))
        before = process.cpu_times().user
        time.sleep(0.3)
        assert process.cpu_times().user == before


@pytest.mark.parametrize("busy", [False, True], ids=["waiting", "decoding"])
def test_a_killed_parent_takes_its_decoder_along(busy: bool, tmp_path: Path) -> None:
    (tmp_path / "reading.mp3").write_bytes(HOURS)
    script = """
        import sys, time
        from pathlib import Path
        from captions.media.recordings import ENCODINGS, Decoder
        running = Decoder(Path(sys.argv[1]).read_bytes())
        running.facts()
        print(running._process._process.pid, flush=True)
        if sys.argv[2] == "True":
            list(running.cut(ENCODINGS[3], longest_s=12_000))
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "reading.mp3"), str(busy)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.5)
        parent.kill()
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE  # of whoever adopts it


@pytest.mark.parametrize(
    "answer",
    [
        "'no JSON'",
        "'[]'",
        "'{\"bytes\": 1000000000}'",
        "'{\"bytes\": -1}'",
        "'{}'",
        "'x' * 200_000",
    ],
)
def test_a_decoder_in_other_hands_is_not_believed(answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["import sys, time", 'print(\'{"ready": true, "bytes": 0}\', flush=True)', "sys.stdin.readline()"]
    (tmp_path / "turned.py").write_text("\n".join([*lines, f"print({answer}, flush=True)", "time.sleep(60)"]))
    monkeypatch.setattr(decoder, "CHILD", "turned")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MediaError) as caught:
        recordings.facts(SENTENCE)
    assert caught.value.code == "bomb"


def test_bytecode_is_kept_where_the_sources_are_read_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    decoder._bytecode_folder.cache_clear()
    try:
        assert recordings.facts(SENTENCE).sound
        assert recordings.facts(SENTENCE).sound
    finally:
        decoder._bytecode_folder.cache_clear()
    (folder,) = tmp_path.iterdir()
    assert list(folder.rglob("decoding.*.pyc"))
