"""The files and batches of OpenAI's Batch API: what is uploaded, what becomes of each line, and what goes wrong.

    POST|GET /v1/files    GET|DELETE /v1/files/{id}    GET /v1/files/{id}/content
    POST|GET /v1/batches  GET /v1/batches/{id}         POST /v1/batches/{id}/cancel

A batch answers `/v1/chat/completions` alone. Its lines are answered one after the other by the very code that answers
calls, so that each stands in the request log like a call, with the `batch` it came in. Shapes, limits and the codes of
a line's errors are those of the OpenAI API reference (https://platform.openai.com/docs/api-reference/batch).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from captions_cli.local.model_endpoint.faults import Fault
from captions_cli.local.model_endpoint.wire import ApiError

MOST_FILE_BYTES = 200_000_000
MOST_LINES = 50_000
ENDPOINT = "/v1/chat/completions"
_WINDOW_S = 86_400
_KEPT_BYTES = 1_000_000_000
"""Of all files together; those of ended batches, oldest first, give way."""
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})

LineAnswer = Callable[[str, str, bytes], Awaitable["tuple[int, dict[str, Any], Fault | None]"]]
"""Answers one line's body, given its batch's id: the HTTP status, the body, and the fault that struck it."""


@dataclass
class StoredFile:
    """One uploaded or written file."""

    id: str
    name: str
    purpose: str
    data: bytes
    created: int

    def card(self) -> dict[str, Any]:
        """Return the `file` object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.data),
            "created_at": self.created,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass
class StoredBatch:
    """One batch and how far it is."""

    id: str
    input_file: str
    window: str
    metadata: Mapping[str, str] | None
    created: int
    fault: Fault | None
    status: str = "validating"
    at: dict[str, int] = field(default_factory=dict)
    """When it came to a status, by the names of the batch object's fields."""
    errors: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    output_file: str | None = None
    error_file: str | None = None
    task: asyncio.Task[None] | None = None
    cancelling: asyncio.Event = field(default_factory=asyncio.Event)

    def moved(self, status: str) -> None:
        """Note that it came to a status."""
        self.status = status
        self.at[f"{status}_at"] = int(time.time())

    def card(self) -> dict[str, Any]:
        """Return the `batch` object."""
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": ENDPOINT,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.input_file,
            "completion_window": self.window,
            "status": self.status,
            "output_file_id": self.output_file,
            "error_file_id": self.error_file,
            "created_at": self.created,
            "expires_at": self.created + _WINDOW_S,
            **self.at,
            "request_counts": {name: self.counts[name] for name in ("total", "completed", "failed")},
            "metadata": self.metadata,
        }


class BatchBook:
    """Every file and batch; lines are answered by `answer`, and a batch takes `seconds` at the least."""

    def __init__(self, answer: LineAnswer, seconds: float) -> None:
        self._answer = answer
        self._seconds = seconds
        self._files: dict[str, StoredFile] = {}
        self._batches: dict[str, StoredBatch] = {}
        self._numbers = count(1)

    # -- files

    def keep(self, name: str, purpose: str, data: bytes) -> dict[str, Any]:
        """Take a file; what it holds is looked at when a batch is made of it."""
        stored = StoredFile(f"file-local-{next(self._numbers):06d}", name, purpose, data, int(time.time()))
        self._files[stored.id] = stored
        self._make_room()
        return stored.card()

    def files(self) -> dict[str, Any]:
        """Return the list of files, newest first."""
        return {
            "object": "list",
            "data": [stored.card() for stored in reversed(self._files.values())],
            "has_more": False,
        }

    def file(self, id_: str) -> StoredFile:
        """Return a file.

        Raises:
            ApiError: there is none of this id.
        """
        if id_ not in self._files:
            raise ApiError(404, f"No such File object: {id_}", param="id")
        return self._files[id_]

    def delete_file(self, id_: str) -> dict[str, Any]:
        """Remove a file."""
        del self._files[self.file(id_).id]
        return {"id": id_, "object": "file", "deleted": True}

    # -- batches

    def create(self, asked: Any, fault: Fault | None) -> dict[str, Any]:
        """Begin a batch.

        Raises:
            ApiError: it asks for what there is not.
        """
        if not isinstance(asked, dict):
            raise ApiError(400, "The JSON body of the request must be an object.")
        if asked.get("endpoint") != ENDPOINT:
            raise ApiError(400, f"Invalid endpoint: this server takes batches of {ENDPOINT}.", param="endpoint")
        if not isinstance(window := asked.get("completion_window"), str):
            raise ApiError(400, "Missing required parameter: 'completion_window'.", param="completion_window")
        metadata = asked.get("metadata")
        if metadata is not None and not (
            isinstance(metadata, dict)
            and len(metadata) <= 16
            and all(
                isinstance(value, str) and len(value) <= 512 and len(name) <= 64 for name, value in metadata.items()
            )
        ):
            raise ApiError(400, "Invalid 'metadata': at most 16 texts of 512 characters.", param="metadata")
        source = self.file(str(asked.get("input_file_id")))
        if source.purpose != "batch":
            raise ApiError(400, "The file's purpose is not 'batch'.", param="input_file_id")
        batch = StoredBatch(
            f"batch_local_{next(self._numbers):06d}", source.id, window, metadata, int(time.time()), fault
        )
        self._batches[batch.id] = batch
        batch.task = asyncio.ensure_future(self._run(batch, source.data))
        return batch.card()

    def batches(self, after: str | None, limit: int) -> dict[str, Any]:
        """Return a page of batches, newest first, behind the one named by `after`."""
        newest = list(reversed(self._batches.values()))
        start = next((place + 1 for place, batch in enumerate(newest) if batch.id == after), 0)
        page = newest[start : start + limit]
        return {
            "object": "list",
            "data": [batch.card() for batch in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": start + limit < len(newest),
        }

    def batch(self, id_: str) -> StoredBatch:
        """Return a batch.

        Raises:
            ApiError: there is none of this id.
        """
        if id_ not in self._batches:
            raise ApiError(404, f"No batch found with id '{id_}'.", param="batch_id")
        return self._batches[id_]

    def cancel(self, id_: str) -> dict[str, Any]:
        """Have a batch end after the line it is at."""
        batch = self.batch(id_)
        if batch.status in _ENDED:
            raise ApiError(409, f"Cannot cancel a batch with status '{batch.status}'.")
        batch.moved("cancelling")
        batch.cancelling.set()
        return batch.card()

    async def stop(self) -> None:
        """End the work on all batches."""
        tasks = [batch.task for batch in self._batches.values() if batch.task is not None and not batch.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, batch: StoredBatch, data: bytes) -> None:
        await asyncio.sleep(0)
        fault = batch.fault.fault if batch.fault is not None else None
        lines = _lines(data, batch.errors)
        if fault == "batch_failed":
            batch.errors.append(_problem("invalid_json_line", "This line is not parseable as valid JSON.", 1))
        if batch.errors:
            batch.moved("failed")
            return
        batch.counts["total"] = len(lines)
        if batch.status == "validating":
            batch.moved("in_progress")
        if fault == "batch_stuck":
            await batch.cancelling.wait()
        due = time.monotonic() + self._seconds + (batch.fault.delay_s or 0.0 if batch.fault else 0.0)
        output: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        expires_after = len(lines) // 2 if fault == "batch_expired" else len(lines)
        for done, (custom_id, body) in enumerate(lines):
            if batch.cancelling.is_set() or done >= expires_after:
                break
            await self._line(batch, custom_id, body, output, failed)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(batch.cancelling.wait(), max(0.0, due - time.monotonic()))
        cancelled = batch.cancelling.is_set()
        if not cancelled:
            batch.moved("finalizing")
        if fault == "batch_expired":
            message = "This request could not be executed before the completion window expired."
            failed += [_unanswered(custom_id, "batch_expired", message) for custom_id, _ in lines[expires_after:]]
        batch.output_file = self._written(batch, "output", output)
        batch.error_file = self._written(batch, "error", failed)
        batch.moved("cancelled" if cancelled else "expired" if fault == "batch_expired" else "completed")

    async def _line(
        self,
        batch: StoredBatch,
        custom_id: str,
        body: Any,
        output: list[dict[str, Any]],
        failed: list[dict[str, Any]],
    ) -> None:
        status, answer, fault = await self._answer(batch.id, custom_id, json.dumps(body).encode())
        if fault is not None and fault.fault == "lost_line":
            return
        kind = "completed" if status == 200 else "failed"
        batch.counts[kind] += 1
        line = {
            "id": f"batch_req_local_{next(self._numbers):08d}",
            "custom_id": custom_id,
            "response": {"status_code": status, "request_id": str(answer.get("id", "")), "body": answer},
            "error": None,
        }
        written = output if status == 200 else failed
        written.extend([line] * (2 if fault is not None and fault.fault == "doubled_line" else 1))

    def _written(self, batch: StoredBatch, kind: str, lines: list[dict[str, Any]]) -> str | None:
        """Write a file of lines; without any there is none."""
        if not lines:
            return None
        text = "\n".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in lines) + "\n"
        return str(self.keep(f"{batch.id}_{kind}.jsonl", "batch_output", text.encode())["id"])

    def _make_room(self) -> None:
        needed = {batch.input_file for batch in self._batches.values() if batch.status not in _ENDED}
        size = sum(len(stored.data) for stored in self._files.values())
        for id_, stored in list(self._files.items())[:-1]:
            if size <= _KEPT_BYTES:
                return
            if id_ not in needed:
                size -= len(stored.data)
                del self._files[id_]


def _lines(data: bytes, errors: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Return each line's custom id and body; what is wrong with them is put into `errors`, with the line's number."""
    lines: list[tuple[str, Any]] = []
    seen: set[str] = set()
    for number, text in enumerate(data.splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            errors.append(_problem("invalid_json_line", "This line is not parseable as valid JSON.", number))
            continue
        if not isinstance(line, dict) or not isinstance(custom_id := line.get("custom_id"), str) or not custom_id:
            errors.append(_problem("missing_required_parameter", "Missing required parameter: 'custom_id'.", number))
        elif custom_id in seen:
            errors.append(_problem("duplicate_custom_id", f"The custom_id '{custom_id}' was used before.", number))
        elif line.get("method") != "POST" or line.get("url") != ENDPOINT:
            errors.append(_problem("mismatched_url", f"Each line must be a POST to {ENDPOINT}.", number))
        elif not isinstance(line.get("body"), dict):
            errors.append(_problem("missing_required_parameter", "Missing required parameter: 'body'.", number))
        else:
            seen.add(custom_id)
            lines.append((custom_id, line["body"]))
    if not lines and not errors:
        errors.append(_problem("empty_file", "The batch file contains no requests.", None))
    if len(lines) > MOST_LINES:
        errors.append(_problem("too_many_tasks", f"A batch holds at most {MOST_LINES} requests.", None))
    if len({str(body.get("model")) for _, body in lines}) > 1:
        errors.append(_problem("model_mismatch", "All requests of a batch must name the same model.", None))
    return lines


def _problem(code: str, message: str, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "line": line}


def _unanswered(custom_id: str, code: str, message: str) -> dict[str, Any]:
    error = {"code": code, "message": message}
    return {"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": None, "error": error}
