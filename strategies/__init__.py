"""Which devices train. See selection.py."""

from strategies.selection import Devices, select
