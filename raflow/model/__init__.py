"""Frozen data that every layer shares, and the tables of states; no I/O."""

from __future__ import annotations

from raflow.model._graph import FlowGraph, graph_from_dict
from raflow.model._graph_parts import Edge, EdgeKind, GraphNode, NodeKind, StopPoint
from raflow.model._logs import LogLine, decode_log, encode_log
from raflow.model._options import ResultPolicy, Serializer, TaskOptions, TriggerRule
from raflow.model._palette import PALETTE, StateLook
from raflow.model._records import (
    Attempt,
    EdgeRecord,
    FlowRun,
    FlowVersion,
    LogSegment,
    NodeRecord,
    Record,
    RecordBatch,
    StateChange,
    TaskRun,
    Trigger,
)
from raflow.model._report import (
    BatchReport,
    CallReport,
    ErrorInfo,
    Outcome,
    ResultInfo,
    TaskRunKey,
)
from raflow.model._resources import Capacity, NodeCapacity, Resources, parse_bytes, shortfall
from raflow.model._retry import RetryDelay, RetryPolicy, exponential_backoff
from raflow.model._state import (
    FINAL_TYPES,
    FLOW_RUN_TRANSITIONS,
    TASK_RUN_TRANSITIONS,
    TYPE_OF,
    FlowRunEvent,
    State,
    StateName,
    StateType,
    TaskRunEvent,
    next_flow_run_state,
    next_task_run_state,
)

__all__ = [
    "FINAL_TYPES",
    "FLOW_RUN_TRANSITIONS",
    "PALETTE",
    "TASK_RUN_TRANSITIONS",
    "TYPE_OF",
    "Attempt",
    "BatchReport",
    "CallReport",
    "Capacity",
    "Edge",
    "EdgeKind",
    "EdgeRecord",
    "ErrorInfo",
    "FlowGraph",
    "FlowRun",
    "FlowRunEvent",
    "FlowVersion",
    "GraphNode",
    "LogLine",
    "LogSegment",
    "NodeCapacity",
    "NodeKind",
    "NodeRecord",
    "Outcome",
    "Record",
    "RecordBatch",
    "Resources",
    "ResultInfo",
    "ResultPolicy",
    "RetryDelay",
    "RetryPolicy",
    "Serializer",
    "State",
    "StateChange",
    "StateLook",
    "StateName",
    "StateType",
    "StopPoint",
    "TaskOptions",
    "TaskRun",
    "TaskRunEvent",
    "TaskRunKey",
    "Trigger",
    "TriggerRule",
    "decode_log",
    "encode_log",
    "exponential_backoff",
    "graph_from_dict",
    "next_flow_run_state",
    "next_task_run_state",
    "parse_bytes",
    "shortfall",
]
