"""What other programs use, on the local stack: the client on its real API."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from captions_cli.local import LocalStack
from captions_cli.local.lambda_runtime.processes import FORKS
from captions_cli.local.options import ModelOptions
from captions_client import AsyncClient, ChangedMeanwhileError, Client, Done
from support.pipeline import MEDIA

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    home = tmp_path_factory.mktemp("programs")
    with LocalStack(
        ROOT / "template.yaml", state_dir=home, model=ModelOptions(latency_scale=0), serve_api=True
    ) as running:
        yield running


def test_a_program_uploads_waits_edits_streams_and_iterates(stack: LocalStack) -> None:
    assert stack.api is not None
    with Client(stack.api.url, token=stack.api.token) as client:
        uploaded = client.upload(MEDIA / "perched-osprey.jpg", key="birds/osprey.jpg", language="en")
        asset = client.wait(uploaded, timeout=60)
        assert (asset.state, asset.version_id) == ("captioned", uploaded.version_id)
        edited = client.edit(asset, "An osprey on its perch")
        with pytest.raises(ChangedMeanwhileError):
            client.edit(asset, "A hawk")
        large = client.upload(bytes(17 * 1_048_576), key="odd/zeros.bin")
        assert client.wait(large, timeout=60).state == "rejected"
        assert {each.key: each.text for each in client.iterate(prefix="birds/", limit=1)} == {edited.key: edited.text}

    async def on_a_loop() -> None:
        assert stack.api is not None
        async with AsyncClient(stack.api.url, token=stack.api.token) as client:
            events = [event async for event in client.stream(MEDIA / "casa-mila.jpg", language="en")]
            assert isinstance(events[-1], Done)
            again = await client.wait(await client.upload(MEDIA / "casa-mila.jpg", language="en"), timeout=60)
            assert (again.source, again.text) == ("cache", events[-1].asset.text)

    asyncio.run(on_a_loop())


@pytest.mark.skipif(not FORKS, reason="sandboxes are forked on Linux only")
def test_sandboxes_are_forks_of_one_process_that_has_imported_packages(stack: LocalStack) -> None:
    parents = {psutil.Process(pid).parent() for _, pid in stack.workers()}
    (server,) = parents
    assert server is not None
    assert Path(server.cmdline()[-1]).name == "fork_server.py"
