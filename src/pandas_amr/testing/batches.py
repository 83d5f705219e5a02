"""The endpoints of a provider's batch service: files, and batches of requests."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from aiohttp import web

from pandas_amr.testing.answers import Status
from pandas_amr.testing.completions import CompletionWriter
from pandas_amr.testing.request import ScriptedRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE_SIZE = 20
FILE_NAME = re.compile(rb'filename="([^"]*)"')


class BatchEndpoints:
    """Files and batches; a batch is answered when it is created, and ended after some polls."""

    def __init__(self) -> None:
        self.requests: list[ScriptedRequest] = []
        self.batches: dict[str, dict[str, Any]] = {}
        self.batch_polls = 2
        self.batch_answers = 10**9
        self.batch_lists = False
        self._writer = CompletionWriter()
        self._files: dict[str, str] = {}
        self._uploads: dict[str, dict[str, Any]] = {}

    async def _answer(self, request: ScriptedRequest) -> Any:
        """Return the script's answer to a request."""
        raise NotImplementedError

    def _add_batch_routes(self, router: web.UrlDispatcher, root: str) -> None:
        router.add_post(f"{root}/files", self._upload)
        router.add_get(f"{root}/files", self._list_files)
        router.add_get(f"{root}/files/{{id}}/content", self._download)
        router.add_post(f"{root}/batches", self._create_batch)
        router.add_get(f"{root}/batches", self._list_batches)
        router.add_get(f"{root}/batches/{{id}}", self._show_batch)

    async def _upload(self, http: web.Request) -> web.Response:
        content_type = http.headers["Content-Type"]
        body = await http.read()
        text, filename = _file_in_form(content_type, body)
        return web.json_response(self._store_file(text, filename))

    def _store_file(self, text: str, filename: str | None = None) -> dict[str, Any]:
        name = f"file-{len(self._files)}"
        upload = {
            "object": "file",
            "id": name,
            "bytes": len(text.encode()),
            "created_at": 0,
            "filename": filename or name,
            "purpose": "batch",
            "status": "processed",
        }
        self._files[name] = text
        self._uploads[name] = upload
        return upload

    async def _list_files(self, http: web.Request) -> web.Response:
        files = list(self._uploads.values())
        return self._list(files, http)

    async def _list_batches(self, http: web.Request) -> web.Response:
        batches = [_current_state(batch) for batch in self.batches.values()]
        return self._list(batches, http)

    def _list(self, entries: list[dict[str, Any]], http: web.Request) -> web.Response:
        if not self.batch_lists:
            return _refuse("method not allowed", 405)
        return web.json_response(_page(entries, http.query))

    async def _download(self, http: web.Request) -> web.Response:
        name = http.match_info["id"]
        return web.Response(text=self._files[name])

    async def _create_batch(self, http: web.Request) -> web.Response:
        body = await http.json()
        lines = self._files[body["input_file_id"]].splitlines()
        answered: list[str] = []
        failed: list[str] = []
        for line in lines[: self.batch_answers]:
            entry = json.loads(line)
            response = await self._answer_entry(entry)
            result = json.dumps({"custom_id": entry["custom_id"], "response": response})
            if response["status_code"] == 200:
                answered.append(result)
            else:
                failed.append(result)
        name = f"batch-{len(self.batches)}"
        batch = {
            "id": name,
            "object": "batch",
            "endpoint": body["endpoint"],
            "completion_window": "24h",
            "created_at": 0,
            "input_file_id": body["input_file_id"],
            "metadata": body.get("metadata"),
            "output_file_id": self._store_lines(answered),
            "error_file_id": self._store_lines(failed),
            "polls": self.batch_polls,
            "ends": "completed" if len(lines) <= self.batch_answers else "expired",
        }
        self.batches[name] = batch
        return web.json_response(_current_state(batch))

    async def _answer_entry(self, entry: dict[str, Any]) -> dict[str, Any]:
        request = ScriptedRequest(len(self.requests), entry["body"])
        self.requests.append(request)
        answer = await self._answer(request)
        if isinstance(answer, Status):
            error = {"message": answer.message, "code": answer.code}
            return {"status_code": answer.status, "body": {"error": error}}
        return {"status_code": 200, "body": self._writer.write(request, answer)}

    def _store_lines(self, lines: list[str]) -> str | None:
        """Store the lines as a file, and return its id; no file if there are none."""
        if not lines:
            return None
        name: str = self._store_file("\n".join(lines))["id"]
        return name

    async def _show_batch(self, http: web.Request) -> web.Response:
        batch = self.batches.get(http.match_info["id"])
        if batch is None:
            return _refuse("no such batch", 404)
        batch["polls"] -= 1
        return web.json_response(_current_state(batch))


def _refuse(message: str, status: int) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status)


def _current_state(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch as the service shows it: the files only after it has ended."""
    if batch["polls"] <= 0:
        return {**batch, "status": batch["ends"]}
    return {**batch, "output_file_id": None, "error_file_id": None, "status": "in_progress"}


def _page(entries: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of a list, the newest entry first, after the one that ``after`` names."""
    newest_first = entries[::-1]
    names = [entry["id"] for entry in newest_first]
    after = query.get("after")
    start = names.index(after) + 1 if after in names else 0
    end = start + int(query.get("limit", PAGE_SIZE))
    has_more = end < len(entries)
    return {"object": "list", "data": newest_first[start:end], "has_more": has_more}


def _file_in_form(content_type: str, body: bytes) -> tuple[str, str | None]:
    """Read the file of a form, and its name.

    aiohttp's own reader warns about itself if a chunk ends within a boundary.
    """
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            name = FILE_NAME.search(head)
            return content.removesuffix(b"\r\n").decode(), name and name[1].decode()
    raise ValueError("The form has no file.")
