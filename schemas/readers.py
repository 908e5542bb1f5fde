"""How each contract is read: its present version, and the earlier ones that it can still be made of.

A changed layout gets the next number as the default of ``v``, a reader of the old one here, and a new frozen sample in
``tests/unit/golden``; the old sample stays, and has to be readable for ever.
"""

from schemas.alerts import Alert
from schemas.commands import JobAck, JobCommand, ThrottleAck, ThrottleCommand
from schemas.statements import CellStatement, HourStatement, ScopeStatement, Signal, SpenderStatement, Watermark
from schemas.versions import Versioned

CELL_STATEMENTS = Versioned("a cell's statement", CellStatement)
SCOPE_STATEMENTS = Versioned("a scope's statement", ScopeStatement)
HOUR_STATEMENTS = Versioned("an hour's statement", HourStatement)
SPENDERS = Versioned("a statement of spenders", SpenderStatement)
WATERMARKS = Versioned("a watermark", Watermark)
SIGNALS = Versioned("a signal", Signal)
ALERTS = Versioned("an alert", Alert)
COMMANDS = Versioned("a throttle command", ThrottleCommand)
ACKS = Versioned("a gateway's acknowledgement", ThrottleAck)
JOB_COMMANDS = Versioned("a job command", JobCommand)
JOB_ACKS = Versioned("an executor's acknowledgement", JobAck)
